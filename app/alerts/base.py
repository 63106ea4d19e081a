"""What every alert channel has in common."""

import logging
import ssl
from abc import ABC, abstractmethod
from typing import ClassVar, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3

from trainvitals.app.alerts.message import Alert
from trainvitals.app.settings import LOOPBACK, Settings

TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)

JSON = "application/json; charset=utf-8"

# At DEBUG it writes the paths of addresses, which are keys.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)


class ChannelError(Exception):
    """A message that was not delivered. The text is shown to people and never holds an address or key.

    `permanent`: whether trying again is pointless. `retry_after`: seconds that the receiver asked for.
    """

    def __init__(
        self, message: str, *, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


class Channel(ABC):
    """A place that alerts go to. Its address is a secret: errors and logs name the channel by its key."""

    key: ClassVar[str]
    title: ClassVar[str]
    """As people read it."""
    pace_s: ClassVar[float] = 0.0
    """Seconds between two messages, at least."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """The channel as it is set up, None when it isn't."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it goes, as far as everyone may see it: never a key or a password."""

    @abstractmethod
    def payload(self, alert: Alert) -> dict[str, object]:
        """What is sent for `alert`. Pure."""

    @abstractmethod
    def send(self, alert: Alert) -> None:
        """Deliver `alert`. Raises ChannelError."""


def host_of(url: str) -> str:
    """Scheme and host of a secret address: its path, user and query are keys to it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}/…"


def post(url: str, value: dict[str, object], headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """POST `value` as JSON to a secret address, without following redirects. Raises ChannelError."""
    return post_bytes(url, msgspec.json.encode(value), headers)


def post_bytes(url: str, body: bytes, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    """Like `post`, for a body that is encoded already."""
    headers = {"Content-Type": JSON, "User-Agent": "trainvitals", **headers}
    try:
        with _pool(url) as pool:
            return pool.request(
                "POST",
                url,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                timeout=TIMEOUT,
            )
    # The text of these errors holds the address, which is a secret.
    except urllib3.exceptions.TimeoutError as error:
        raise ChannelError("The receiver did not answer in time.") from error
    except (urllib3.exceptions.SSLError, ssl.SSLError) as error:
        raise ChannelError("The receiver's certificate can't be verified.") from error
    except (urllib3.exceptions.LocationValueError, UnicodeError) as error:
        raise ChannelError("The receiver's address can't be used.", permanent=True) from error
    except urllib3.exceptions.HTTPError as error:
        raise ChannelError("There is no connection to the receiver.") from error


def retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds that the receiver asks to wait, at most an hour; None when it doesn't say."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), 3600.0) if text.isdecimal() else None


def _pool(url: str) -> urllib3.PoolManager:
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme)
    if proxy and host not in LOOPBACK and not proxy_bypass(host):
        return urllib3.ProxyManager(proxy, num_pools=1)
    return urllib3.PoolManager(num_pools=1)
