"""Any of the services that Apprise knows (github.com/caronc/apprise), by one URL. An extra: `trainvitals[apprise]`."""

import logging
from typing import Self
from urllib.parse import urlsplit

from trainvitals.app.alerts.base import Channel, ChannelError
from trainvitals.app.alerts.message import Alert
from trainvitals.app.alerts.text import body, headline
from trainvitals.app.settings import Settings

MAX_TITLE = 200
_TYPES = {"critical": "failure", "warning": "warning", "info": "info"}


class Apprise(Channel):
    """One Apprise URL: its scheme names the service, the rest holds its keys."""

    key = "apprise"
    title = "Apprise"
    pace_s = 1.0

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """The channel, when `apprise_url` is set."""
        return cls(settings.apprise_url) if settings.apprise_url else None

    @property
    def address(self) -> str:
        """The service; everything after it may be a key."""
        return f"{urlsplit(self._url).scheme}://…"

    def payload(self, alert: Alert) -> dict[str, object]:
        """What Apprise is given; it cuts it to what the service takes."""
        return {**self._told(alert)}

    def _told(self, alert: Alert) -> dict[str, str]:
        kind = "success" if alert.resolved else _TYPES[alert.severity]
        return {"title": headline(alert, MAX_TITLE), "body": body(alert), "notify_type": kind}

    def send(self, alert: Alert) -> None:
        """Notify by Apprise, which tells only whether it worked. Raises ChannelError."""
        try:
            import apprise
        except ImportError as error:
            raise ChannelError(
                "Apprise is not installed on the server: pip install 'trainvitals[apprise]'."
            ) from error
        logging.getLogger("apprise").disabled = True  # it names addresses
        service = apprise.Apprise()
        if not service.add(self._url):
            raise ChannelError("Apprise does not understand the URL.", permanent=True)
        told = self._told(alert)
        try:
            taken = service.notify(
                told["body"],
                title=told["title"],
                notify_type=told["notify_type"],
                body_format="text",
            )
        except Exception as error:  # plugins by many hands; the text may hold the address
            raise ChannelError(f"Apprise failed with {type(error).__name__}.") from None
        if not taken:
            raise ChannelError(f"{self.address} did not take the message.")
