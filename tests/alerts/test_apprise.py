"""Apprise, with its own plugin for JSON, against a real receiver on loopback."""

import json
import logging

import pytest

from trainvitals.app.alerts.apprise import Apprise
from trainvitals.app.alerts.base import ChannelError

pytestmark = pytest.mark.filterwarnings("ignore:.imghdr:DeprecationWarning")  # a plugin of its own

SECRET = "s3cret-t0ken"


def channel(receiver):
    return Apprise(f"{receiver.url.replace('http', 'json')}/{SECRET}")


def test_a_message_arrives_as_text(receiver, alert):
    channel(receiver).send(alert(title="<b>fc1</b> & *co* are dead"))
    ((path, _, body),) = receiver.got
    told = json.loads(body)
    assert path == f"/{SECRET}"
    assert told["type"] == "failure"
    assert told["title"] == "CRITICAL: digits: <b>fc1</b> & *co* are dead"
    assert "Do this: Lower the learning rate." in told["message"]


def test_a_resolve_is_told_as_a_success(receiver, alert):
    channel(receiver).send(alert(kind="resolved", over=True))
    assert json.loads(receiver.got[0][2])["type"] == "success"


def test_a_refusal_is_an_error_that_holds_no_key(receiver, alert, caplog):
    receiver.status = 503
    with caplog.at_level(logging.DEBUG), pytest.raises(ChannelError) as caught:
        channel(receiver).send(alert())
    assert not caught.value.permanent
    assert SECRET not in str(caught.value) + caplog.text
    assert channel(receiver).address == "json://…"


def test_a_url_that_apprise_does_not_know_is_given_up(alert):
    with pytest.raises(ChannelError, match="does not understand") as caught:
        Apprise(f"nothing-like-it://{SECRET}").send(alert())
    assert caught.value.permanent
    assert SECRET not in str(caught.value)
