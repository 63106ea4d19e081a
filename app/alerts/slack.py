"""Slack, by an incoming webhook: one Block Kit message for each alert.

Limits: docs.slack.dev/reference/block-kit/blocks (header 150 characters, section text 3,000, context 10
elements, button text 75); together they stay under the total of about 13,200 that Slack enforces without saying so.
"""

from typing import Self

from trainvitals.app.alerts.base import Channel, ChannelError, host_of, post, retry_after
from trainvitals.app.alerts.message import Alert
from trainvitals.app.settings import Settings

MAX_HEADER = 150
MAX_SECTION = 3000
MAX_CONTEXT = 1000
MAX_LINK = 3000

_EMOJI = {"critical": "🔴", "warning": "🟠", "info": "🔵"}
_GONE = {
    403: "Slack refuses this webhook; create a new one.",
    404: "Slack does not know this webhook; create a new one.",
    410: "Slack has removed this webhook or its channel; create a new one.",
}


class Slack(Channel):
    """A Slack channel, reached by the webhook address that Slack gave out for it."""

    key = "slack"
    title = "Slack"
    pace_s = 1.0

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """The channel, when `slack_webhook` is set."""
        return cls(settings.slack_webhook) if settings.slack_webhook else None

    @property
    def address(self) -> str:
        """Scheme and host."""
        return host_of(self._url)

    def payload(self, alert: Alert) -> dict[str, object]:
        """A Block Kit message; `text` is what notifications and screen readers get."""
        headline = f"{_emoji(alert)} {_verb(alert)}{alert.run_name}: {alert.title}"
        blocks: list[dict[str, object]] = [
            {"type": "header", "text": _plain(headline, MAX_HEADER)},
            {"type": "section", "text": _mrkdwn(_facts(alert), MAX_SECTION)},
        ]
        if alert.remedy and not alert.resolved:
            blocks.append({"type": "section", "text": _mrkdwn(_remedy(alert), MAX_SECTION)})
        if alert.consequences:
            blocks.append({"type": "section", "text": _mrkdwn(_consequences(alert), MAX_SECTION)})
        blocks.append({"type": "context", "elements": [_mrkdwn(_origin(alert), MAX_CONTEXT)]})
        if buttons := _buttons(alert):
            blocks.append({"type": "actions", "elements": buttons})
        return {"text": fit(headline, MAX_CONTEXT), "blocks": blocks}

    def send(self, alert: Alert) -> None:
        """Post to the webhook. Raises ChannelError."""
        reply = post(self._url, self.payload(alert), {})
        if reply.status == 200:
            return
        if reply.status in _GONE:
            raise ChannelError(_GONE[reply.status], permanent=True)
        if reply.status == 429:
            wait = retry_after(reply)
            raise ChannelError(
                "Slack asks to slow down.", retry_after=30.0 if wait is None else wait
            )
        if 300 <= reply.status < 500:
            raise ChannelError(
                f"Slack refused the message (HTTP {reply.status}). Is the address an incoming webhook?",
                permanent=True,
            )
        raise ChannelError(f"Slack answered HTTP {reply.status}.", retry_after=retry_after(reply))


def _buttons(alert: Alert) -> list[dict[str, object]]:
    """Links: an incoming webhook has nobody who would hear of a button."""
    wanted = [("Open run", alert.link)]
    if alert.handle_link and not alert.resolved:
        wanted.append(("Acknowledge or mute", alert.handle_link))
    return [
        {"type": "button", "text": {"type": "plain_text", "text": text}, "url": link}
        for text, link in wanted
        if len(link) <= MAX_LINK
    ]


def fit(text: str, limit: int) -> str:
    """`text` on the way to Slack: &, < and > escaped, at most `limit` characters with the escapes."""
    escaped = "".join(_ESCAPES.get(character, character) for character in text)
    if len(escaped) <= limit:
        return escaped
    kept, size = [], 1  # the ellipsis
    for character in text:
        piece = _ESCAPES.get(character, character)
        size += len(piece)
        if size > limit:
            break
        kept.append(piece)
    return "".join(kept) + "…"


_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def _plain(text: str, limit: int) -> dict[str, object]:
    return {"type": "plain_text", "text": fit(" ".join(text.split()), limit), "emoji": True}


def _mrkdwn(text: str, limit: int) -> dict[str, object]:
    # verbatim: an address or a #name in a layer's name or message is not to become a link
    return {"type": "mrkdwn", "text": fit(text, limit), "verbatim": True}


def _emoji(alert: Alert) -> str:
    return "✅" if alert.resolved else _EMOJI[alert.severity]


def _verb(alert: Alert) -> str:
    if alert.resolved:
        return "Resolved: "
    return {"escalated": "Worse: ", "reminder": "Still: "}.get(alert.kind, "")


def _facts(alert: Alert) -> str:
    lines = [f"*{_inert(alert.title)}*"]
    if alert.resolved:
        lines.append(f"Held from step {alert.first_step:,} to {alert.last_step:,}.")
    elif alert.over:
        lines.append(f"From step {alert.first_step:,} to {alert.last_step:,}; it is over.")
    else:
        lines.append(f"Since step {alert.first_step:,}.")
    if alert.seen:
        lines.append(f"*Seen:* {_inert(alert.seen)}")
    if alert.expected:
        lines.append(f"*Expected:* {_inert(alert.expected)}")
    if alert.layers:
        lines.append(f"*Layers:* {_inert(alert.layers)}")
    return "\n".join(lines)


def _remedy(alert: Alert) -> str:
    text = f"*Do this:* {_inert(alert.remedy)}"
    return f"{text}\n```{_inert(alert.diff)}```" if alert.diff else text


def _consequences(alert: Alert) -> str:
    lines = ["*What followed:*", *(f"• {_inert(line)}" for line in alert.consequences)]
    if alert.more_consequences:
        lines.append(f"• and {alert.more_consequences} more")
    return "\n".join(lines)


def _origin(alert: Alert) -> str:
    origin = f"{alert.project} · run {alert.run_name} ({alert.run}) · {alert.severity} · rule {alert.rule}"
    if alert.repeated:
        origin += " · may have come before: the server was stopped while it sent this"
    return _inert(origin)


def _inert(text: str) -> str:
    """`text` without the characters that would switch Slack's formatting inside of it."""
    return text.replace("`", "'").replace("*", "∗").replace("~", "∼")
