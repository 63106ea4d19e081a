"""A generic webhook: JSON in the shape of Alertmanager's version 4, so that existing receivers understand it.

Shape: prometheus.io/docs/alerting/latest/configuration/#webhook_config.
"""

import hashlib
import hmac
import time
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, urlsplit

import msgspec

from trainvitals.app.alerts.base import Channel, ChannelError, host_of, post_bytes, retry_after
from trainvitals.app.alerts.message import Alert
from trainvitals.app.settings import Settings

SIGNATURE = "X-Trainvitals-Signature"
NOT_OVER = "0001-01-01T00:00:00Z"
"""`endsAt` of what still holds, as Alertmanager writes it."""

_TRANSIENT = frozenset({408, 409, 423, 425, 429})


class Webhook(Channel):
    """Any address that takes a JSON POST; signed when a key is set."""

    key = "webhook"
    title = "Webhook"

    def __init__(self, url: str, secret: str = "") -> None:
        self._url = url
        self._secret = secret

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """The channel, when `webhook_url` is set."""
        if not settings.webhook_url:
            return None
        return cls(settings.webhook_url, settings.webhook_secret)

    @property
    def address(self) -> str:
        """Scheme and host."""
        return host_of(self._url)

    def payload(self, alert: Alert) -> dict[str, object]:
        """One group with one alert, as Alertmanager would post it."""
        status = "resolved" if alert.resolved else "firing"
        group = {"run": alert.run, "finding": alert.group}
        labels = {
            **group,
            "alertname": alert.rule,
            "severity": alert.severity,
            "project": alert.project,
            "run_name": alert.run_name,
        }
        annotations = _annotations(alert)
        entry = {
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": _rfc3339(alert.opened),
            "endsAt": _rfc3339(alert.time) if alert.resolved else NOT_OVER,
            "generatorURL": alert.link,
            "fingerprint": hashlib.sha256(f"{alert.run}/{alert.group}".encode()).hexdigest()[:16],
        }
        parts = urlsplit(alert.link)
        return {
            "version": "4",
            "groupKey": f"{alert.run}/{alert.group}",
            "truncatedAlerts": 0,
            "status": status,
            "receiver": "trainvitals",
            "groupLabels": group,
            "commonLabels": labels,
            "commonAnnotations": annotations,
            "externalURL": f"{parts.scheme}://{parts.netloc}",
            "alerts": [entry],
        }

    def send(self, alert: Alert) -> None:
        """Post, signed with the time of this try. Raises ChannelError."""
        body = msgspec.json.encode(self.payload(alert))
        headers = {"Idempotency-Key": quote(alert.id, safe="/:")}
        if self._secret:
            headers[SIGNATURE] = signature(self._secret, body, int(time.time()))
        reply = post_bytes(self._url, body, headers)
        if 200 <= reply.status < 300:
            return
        permanent = 300 <= reply.status < 500 and reply.status not in _TRANSIENT
        raise ChannelError(
            f"The webhook answered HTTP {reply.status}.",
            permanent=permanent,
            retry_after=retry_after(reply),
        )


def signature(secret: str, body: bytes, timestamp: int) -> str:
    """The signature header: `t=<Unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`.

    A receiver recomputes it, compares in constant time and refuses an old `t`.
    """
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"t={timestamp},v1={digest.hexdigest()}"


def _annotations(alert: Alert) -> dict[str, str]:
    found = {
        "summary": alert.title,
        "description": alert.remedy,
        "seen": alert.seen,
        "expected": alert.expected,
        "layers": alert.layers,
        "first_step": str(alert.first_step),
        "last_step": str(alert.last_step),
        "kind": alert.kind,
        "consequences": "\n".join(alert.consequences),
    }
    return {name: text for name, text in found.items() if text}


def _rfc3339(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
