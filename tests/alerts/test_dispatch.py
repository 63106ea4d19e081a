"""From the outbox to the channels."""

from itertools import pairwise

import pytest

from trainvitals.app.alerts.base import ChannelError
from trainvitals.app.alerts.dispatch import GIVE_UP_S, LEASE_S, Dispatcher, retry_wait
from trainvitals.app.alerts.webhook import Webhook
from trainvitals.app.store import Store


def test_an_alert_waits_for_its_consequences_and_is_sent_once(outbox, channel, dispatcher, finding):
    outbox.find(finding("a", severity="critical"))
    assert dispatcher.tick(outbox.now + 1.9) == 0
    outbox.find(finding("a", severity="critical"), finding("b", root=False, cause="a"))
    assert dispatcher.tick(outbox.now + 2.1) == 1
    assert dispatcher.tick(outbox.now + 100) == 0
    (alert,) = channel.got
    assert alert.consequences == ["b is sick. (from step 100)"]
    assert alert.link.startswith("http://here/runs/run-1")
    assert outbox.states() == {"open": "delivered"}


def test_a_root_that_got_explained_before_it_was_sent_is_not_sent(
    outbox, channel, dispatcher, finding
):
    outbox.find(finding("a"))
    outbox.find(finding("a", root=False, cause="b"), finding("b", severity="critical"))
    for second in range(20):
        dispatcher.tick(outbox.now + second)
    assert [(alert.group, alert.kind) for alert in channel.got] == [("b", "open")]
    assert channel.got[0].consequences == ["a is sick. (from step 100)"]


def test_an_opening_is_followed_by_its_resolve(outbox, channel, dispatcher, finding):
    outbox.find(finding("a"))
    dispatcher.tick(outbox.now + 16)
    opened = outbox.now
    outbox.now += 60
    outbox.find(finding("a", state="resolved"))
    dispatcher.tick(outbox.now + 16)
    assert [alert.kind for alert in channel.got] == ["open", "resolved"]
    assert channel.got[1].opened == pytest.approx(opened)
    assert channel.got[1].time == pytest.approx(opened + 60)


def test_what_came_and_went_before_it_was_sent_is_told_in_order(
    outbox, channel, dispatcher, finding
):
    outbox.find(finding("a", severity="critical", state="resolved"))
    for second in range(20):
        dispatcher.tick(outbox.now + second)
    assert [(alert.kind, alert.over) for alert in channel.got] == [
        ("open", True),
        ("resolved", True),
    ]


def test_a_worse_severity_is_told_once(outbox, channel, dispatcher, finding):
    outbox.find(finding("a"))
    outbox.find(finding("a", severity="critical"))  # before the opening was sent
    for second in range(20):
        dispatcher.tick(outbox.now + second)
    assert [(alert.kind, alert.severity) for alert in channel.got] == [("open", "critical")]
    outbox.find(finding("b"))
    dispatcher.tick(outbox.now + 20)
    outbox.now += 60
    outbox.find(finding("b", severity="critical"))
    dispatcher.tick(outbox.now + 20)
    assert [(alert.group, alert.kind) for alert in channel.got[1:]] == [
        ("b", "open"),
        ("b", "escalated"),
    ]


def test_a_failed_delivery_is_tried_again_later(outbox, channel, dispatcher, finding):
    outbox.find(finding("a"))
    channel.error = ChannelError("No answer.")
    assert dispatcher.tick(outbox.now + 15) == 0
    channel.error = None
    assert dispatcher.tick(outbox.now + 16) == 0
    assert dispatcher.tick(outbox.now + 21) == 1
    assert len(channel.got) == 1
    assert outbox.states() == {"open": "delivered"}


def test_a_resolve_waits_for_an_opening_that_is_still_tried(outbox, channel, dispatcher, finding):
    outbox.find(finding("a"))
    channel.error = ChannelError("No answer.")
    dispatcher.tick(outbox.now + 15)
    outbox.find(finding("a", state="resolved"))
    channel.error = None
    for second in range(6, 120):
        dispatcher.tick(outbox.now + second)
    assert [alert.kind for alert in channel.got] == ["open", "resolved"]


def test_the_wait_that_a_receiver_asks_for_is_kept(outbox, channel, dispatcher, finding):
    outbox.find(finding("a"))
    channel.error = ChannelError("Slow down.", retry_after=40.0)
    dispatcher.tick(outbox.now + 15)
    channel.error = None
    for second in range(16, 55):
        assert dispatcher.tick(outbox.now + second) == 0
    assert channel.tries == 1
    assert dispatcher.tick(outbox.now + 56) == 1


def test_the_wait_that_a_receiver_asks_for_outlives_the_server(outbox, channel, finding):
    outbox.find(finding("a"), finding("b"))
    channel.error = ChannelError("Slow down.", retry_after=40.0)
    Dispatcher(outbox.store, [channel], "http://here").tick(outbox.now + 15)
    channel.error = None
    assert channel.tries == 1  # the other message waits, too
    for second in range(16, 55):
        assert Dispatcher(outbox.store, [channel], "http://here").tick(outbox.now + second) == 0
    assert Dispatcher(outbox.store, [channel], "http://here").tick(outbox.now + 56) == 2


def test_a_permanent_error_is_given_up_at_once_and_shown(outbox, channel, dispatcher, finding):
    outbox.find(finding("a"))
    channel.error = ChannelError("This webhook is gone.", permanent=True)
    dispatcher.tick(outbox.now + 15)
    channel.error = None
    assert dispatcher.tick(outbox.now + 10_000) == 0
    (delivery,) = outbox.store.deliveries("run-1", limit=10)
    assert "gone" in delivery.error
    assert delivery.state not in {"delivered", "pending"}


def try_for_two_days(outbox, dispatcher):
    """Tick every minute; returns the time after that."""
    now = outbox.now
    while now < outbox.now + 2 * GIVE_UP_S:
        dispatcher.tick(now)
        now += 60
    return now


def test_a_receiver_that_stays_away_is_given_up_after_a_day(outbox, channel, dispatcher, finding):
    outbox.find(finding("a"))
    channel.error = ChannelError("No answer.")
    now = try_for_two_days(outbox, dispatcher)
    assert 200 < channel.tries < 310  # every five minutes in the end
    channel.error = None
    assert dispatcher.tick(now) == 0


@pytest.mark.slow
def test_a_channel_with_a_fault_is_given_up_after_a_day_and_named(
    outbox, channel, dispatcher, finding
):
    outbox.find(finding("a"))
    channel.error = KeyError("blocks")
    try_for_two_days(outbox, dispatcher)
    assert 200 < channel.tries < 310
    (delivery,) = outbox.store.deliveries("run-1", limit=10)
    assert "KeyError" in delivery.error


def test_one_channel_in_trouble_does_not_hold_up_another(outbox, channel, finding, recorder):
    other = recorder("other")
    dispatcher = Dispatcher(outbox.store, [channel, other], "http://here")
    channel.error = ChannelError("No answer.")
    outbox.find(finding("a"))
    assert dispatcher.tick(outbox.now + 15) == 1
    assert len(other.got) == 1


def test_a_resolve_is_only_for_channels_that_got_the_opening(outbox, channel, finding, recorder):
    other = recorder("other")
    dispatcher = Dispatcher(outbox.store, [channel, other], "http://here")
    channel.error = ChannelError("Gone.", permanent=True)
    outbox.find(finding("a"))
    dispatcher.tick(outbox.now + 15)
    channel.error = None
    outbox.find(finding("a", state="resolved"))
    dispatcher.tick(outbox.now + 20)
    assert [alert.kind for alert in other.got] == ["open", "resolved"]
    assert channel.got == []


def test_a_crash_after_sending_repeats_the_message_under_its_id(
    outbox, channel, finding, monkeypatch
):
    outbox.find(finding("a"))

    def crash(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "mark_delivered", crash)
        with pytest.raises(RuntimeError):
            Dispatcher(outbox.store, [channel], "http://here").tick(outbox.now + 15)
    again = Dispatcher(outbox.store, [channel], "http://here")
    assert again.tick(outbox.now + 16) == 0  # the other may be at it still
    assert again.tick(outbox.now + 15 + LEASE_S + 1) == 1
    first, second = channel.got
    assert first.id == second.id
    assert (first.repeated, second.repeated) == (False, True)


def test_the_pace_of_a_channel_is_kept_whoever_sends(outbox, channel, finding):
    channel.pace_s = 1.0
    outbox.find(*(finding(f"rule{n}") for n in range(5)))
    sent = []
    for tenth in range(80):  # every time another process, as after a kill
        dispatcher = Dispatcher(outbox.store, [channel], "http://here")
        moment = outbox.now + 15 + tenth / 10
        sent += [moment] * dispatcher.tick(moment)
    assert len(sent) == 5
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(sent))


def test_alerts_reach_a_real_receiver(outbox, receiver, finding):
    outbox.find(finding("a"))
    assert Dispatcher(outbox.store, [Webhook(receiver.url)], "http://x").tick(outbox.now + 15) == 1
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("attempts", "asked", "wait"),
    [(1, None, 5), (2, None, 10), (5, None, 80), (7, None, 300), (10**6, None, 300), (1, 30, 30)],
)
def test_waits_double_up_to_five_minutes(attempts, asked, wait):
    assert retry_wait(attempts, asked) == wait
