"""Acknowledged, muted, reminded: what people say of a finding, and what they are told then."""

import pytest

from trainvitals.app.alerts.dispatch import Dispatcher
from trainvitals.app.alerts.watchman import Watchman
from trainvitals.app.store.types import Handling

HOUR = 3600.0


def run_for(dispatcher, start, seconds, every=1.0):
    moment = start
    while moment < start + seconds:
        dispatcher.tick(moment)
        moment += every


def kinds(channel):
    return [(alert.group, alert.kind) for alert in channel.got]


@pytest.fixture
def remind(outbox, dispatcher):
    """Let hours pass in which the run goes on."""

    def pass_(hours):
        watchman = Watchman(outbox.store, outbox.now)
        for _ in range(int(hours * 60)):
            outbox.now += 60
            outbox.beat()
            watchman.tick(outbox.now)
            dispatcher.tick(outbox.now)

    return pass_


def test_what_lasts_is_told_again_every_four_hours(outbox, channel, dispatcher, finding, remind):
    outbox.find(finding("a", severity="critical"))
    run_for(dispatcher, outbox.now, 20)
    remind(13)
    assert kinds(channel) == [("a", "open")] + [("a", "reminder")] * 3
    assert len({alert.id for alert in channel.got}) == 4


def test_reminders_that_were_missed_are_not_made_up(outbox, channel, dispatcher, finding, remind):
    outbox.find(finding("a", severity="critical"))
    run_for(dispatcher, outbox.now, 20)
    outbox.now += 10 * HOUR  # in which the server was off
    remind(1)
    assert kinds(channel) == [("a", "open"), ("a", "reminder")]


def test_nothing_is_told_again_that_was_acknowledged(outbox, channel, dispatcher, finding, remind):
    outbox.find(finding("a", severity="critical"))
    run_for(dispatcher, outbox.now, 20)
    outbox.store.acknowledge("run-1", "a", 100, outbox.now)
    remind(9)
    outbox.find(finding("a", severity="critical", state="resolved"))
    run_for(dispatcher, outbox.now, 20)
    assert kinds(channel) == [("a", "open"), ("a", "resolved")]


def test_what_comes_back_is_not_acknowledged(outbox, channel, dispatcher, finding, remind):
    outbox.find(finding("a", severity="critical"))
    outbox.store.acknowledge("run-1", "a", 100, outbox.now)
    outbox.find(finding("a", severity="critical", state="resolved"))
    outbox.find(finding("a", severity="critical", first_step=500))
    run_for(dispatcher, outbox.now, 30)
    remind(5)
    assert kinds(channel)[-2:] == [("a", "open"), ("a", "reminder")]


def test_a_run_that_has_ended_is_not_told_of_again(outbox, channel, dispatcher, finding):
    outbox.find(finding("a", severity="critical"))
    run_for(dispatcher, outbox.now, 20)
    watchman = Watchman(outbox.store, outbox.now)
    for hour in range(1, 10):
        watchman.tick(outbox.now + hour * HOUR)  # nothing is heard of the run
        run_for(dispatcher, outbox.now + hour * HOUR, 20)
    assert ("a", "reminder") not in kinds(channel)


def test_a_mute_holds_everything_back_until_it_ends(outbox, channel, dispatcher, finding):
    outbox.store.mute("run-1", "a", outbox.now + 600)
    outbox.find(finding("a"), finding("b"))
    run_for(dispatcher, outbox.now, 600)
    assert kinds(channel) == [("b", "open")]
    run_for(dispatcher, outbox.now + 600, 5)
    assert kinds(channel) == [("b", "open"), ("a", "open")]


def test_what_was_over_before_its_mute_ended_is_not_told(outbox, channel, dispatcher, finding):
    outbox.store.mute("run-1", "a", outbox.now + 600)
    outbox.find(finding("a"))
    outbox.find(finding("a", state="resolved"))
    run_for(dispatcher, outbox.now, 700)
    assert channel.got == []
    assert outbox.states() == {"open": "cancelled", "resolved": "cancelled"}


def test_a_resolve_waits_for_the_end_of_the_mute(outbox, channel, dispatcher, finding):
    outbox.find(finding("a"))
    run_for(dispatcher, outbox.now, 20)
    outbox.store.mute("run-1", "a", outbox.now + 600)
    outbox.find(finding("a", state="resolved"))
    run_for(dispatcher, outbox.now, 599)
    assert kinds(channel) == [("a", "open")]
    run_for(dispatcher, outbox.now + 600, 20)
    assert kinds(channel) == [("a", "open"), ("a", "resolved")]


def test_unmuting_sends_what_was_held_back(outbox, channel, dispatcher, finding):
    outbox.store.mute("run-1", "a", outbox.now + 600)
    outbox.find(finding("a"))
    run_for(dispatcher, outbox.now, 60)
    outbox.store.mute("run-1", "a", None)
    run_for(dispatcher, outbox.now + 60, 2)
    assert kinds(channel) == [("a", "open")]
    assert outbox.store.handling("run-1") == {"a": Handling()}


def test_a_change_of_handling_shows_on_live_pages(outbox):
    before = outbox.store.run("run-1").version
    outbox.store.mute("run-1", "a", outbox.now + 60)
    outbox.store.acknowledge("run-1", "a", 5, outbox.now)
    assert outbox.store.run("run-1").version == before + 2
    assert outbox.store.handling("run-1")["a"] == Handling(
        acknowledged=outbox.now, first_step=5, muted_until=outbox.now + 60
    )


def test_a_message_says_where_to_handle_it(outbox, channel, finding):
    outbox.find(finding("a"))
    Dispatcher(outbox.store, [channel], "http://here").tick(outbox.now + 20)
    assert channel.got[0].handle_link.startswith("http://here/alerts?finding=run-1.")
