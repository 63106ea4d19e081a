"""The alert channels that are set up: which, what they would send, and a test message. Never an address whole."""

import time

from flask import Blueprint, Response, current_app

from trainvitals.app.alerts import CHANNELS, channels_from
from trainvitals.app.alerts.base import Channel, ChannelError
from trainvitals.app.alerts.contact import findings_of
from trainvitals.app.alerts.example import example
from trainvitals.app.alerts.message import compose
from trainvitals.app.alerts.slack import Slack
from trainvitals.app.settings import Settings
from trainvitals.app.store.types import AlertRow
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.findings_api import known_finding
from trainvitals.app.web.serialize import json_response

bp = Blueprint("channels_api", __name__)


@bp.get("/api/v1/channels")
def list_channels() -> Response:
    """Every kind of channel: whether it is set up, and where it goes as far as that is no secret."""
    return json_response({"channels": overview()})


@bp.post("/api/v1/channels/<key>/test")
def test_channel(key: str) -> Response:
    """Send a test message: `{"ok": true, "message": "delivered"}`, or why it was not."""
    channel = _known(key)
    try:
        channel.send(example(_settings().link_base, time.time()))
    except ChannelError as error:
        return json_response({"ok": False, "message": str(error)})
    return json_response({"ok": True, "message": "delivered"})


@bp.get("/api/v1/findings/<wanted>/preview/<key>")
def preview(wanted: str, key: str) -> Response:
    """What a channel would send about a finding as things stand. Slack's form can be seen without one, too."""
    run, finding = known_finding(wanted)
    kind = "resolved" if finding.state == "resolved" else "open"
    now = time.time()
    row = AlertRow(
        id=f"{run.id}/{finding.key}/{finding.first_step}/{kind}",
        run=run.id,
        group=finding.key,
        kind="open" if kind == "open" else "resolved",
        created=now,
        not_before=now,
    )
    alert = compose(row, findings_of(get_store(), run.id), run, _settings().link_base, opened=now)
    if alert is None:
        raise ApiError(
            409,
            "not_told",
            "Nothing is sent about it: another finding explains it, and tells of it.",
        )
    channel = Slack("") if key == Slack.key else _known(key)
    return json_response({"payload": channel.payload(alert)})


def overview() -> list[dict[str, object]]:
    """Every kind of channel, in the order of `CHANNELS`."""
    ready = {channel.key: channel for channel in channels_from(_settings())}
    return [
        {
            "key": kind.key,
            "title": kind.title,
            "ready": kind.key in ready,
            "address": ready[kind.key].address if kind.key in ready else "",
        }
        for kind in CHANNELS
    ]


def _known(key: str) -> Channel:
    """The channel of that key. Raises ApiError."""
    for channel in channels_from(_settings()):
        if channel.key == key:
            return channel
    known = ", ".join(kind.key for kind in CHANNELS)
    raise ApiError(
        404, "no_such_channel", f"No channel {key[:40]!r} is set up here; there may be {known}."
    )


def _settings() -> Settings:
    settings: Settings = current_app.config["SETTINGS"]
    return settings
