"""Findings to messages, messages to channels."""

from trainvitals.app.alerts.apprise import Apprise
from trainvitals.app.alerts.base import Channel
from trainvitals.app.alerts.email import Email
from trainvitals.app.alerts.slack import Slack
from trainvitals.app.alerts.webhook import Webhook
from trainvitals.app.settings import Settings

CHANNELS: tuple[type[Channel], ...] = (Slack, Webhook, Email, Apprise)
"""Every kind of channel. A new one is one module, one line here, one test, one entry in docs/alerts.md."""


def channels_from(settings: Settings) -> list[Channel]:
    """The channels that are set up."""
    made = (kind.from_settings(settings) for kind in CHANNELS)
    return [channel for channel in made if channel is not None]
