"""Lost contact: a run or a rank that went silent is told, once, and so is its return."""

import pytest

from trainvitals.app.alerts.contact import SILENT_S
from trainvitals.app.alerts.dispatch import Dispatcher
from trainvitals.app.alerts.watchman import Watchman
from trainvitals.app.store import Store
from trainvitals.hooks.wire.records import Batch, End, Start


class Fleet:
    """A run of several ranks that send heartbeats, and a server that listens."""

    def __init__(self, store, channel, ranks):
        self.store, self.channel = store, channel
        self.now = 1e9
        self.ended = set()
        self.start = self.now
        for rank in range(ranks):
            start = Start(seq=0, time=self.now, project="p", name="fleet", world_size=ranks)
            self._append(rank, [start])
        self.restart()

    def _append(self, rank, records, first=0):
        batch = Batch(version=1, run="run-1", attempt="a1", rank=rank, first=first, records=records)
        self.store.append(batch, self.now)

    def restart(self):
        self.watchman = Watchman(self.store, self.now)
        self.dispatcher = Dispatcher(self.store, [self.channel], "http://here")

    def end(self, rank):
        self._append(rank, [End(seq=1, time=self.now, step=9, status="finished")], first=1)

    def go_on(self, seconds, heard=()):
        for _ in range(int(seconds / 5)):
            self.now += 5
            for rank in heard:
                self._append(rank, [], first=1)
            self.watchman.tick(self.now)
            self.dispatcher.tick(self.now)

    @property
    def told(self):
        return [(alert.group, alert.kind) for alert in self.channel.got]


@pytest.fixture
def fleet(tmp_path, channel):
    with Store.open(tmp_path / "fleet.db") as store:
        yield Fleet(store, channel, ranks=3)


def test_a_run_that_is_heard_of_is_not_told_of(fleet):
    fleet.go_on(1000, heard=(0, 1, 2))
    assert fleet.told == []


def test_a_silent_run_is_told_once_and_so_is_its_return(fleet):
    fleet.go_on(30, heard=(0, 1, 2))
    fleet.go_on(SILENT_S - 5)
    assert fleet.told == []
    fleet.go_on(3600)
    assert fleet.told == [("lost-contact", "open")]
    fleet.go_on(60, heard=(0, 1, 2))
    assert fleet.told == [("lost-contact", "open"), ("lost-contact", "resolved")]
    fleet.go_on(600)
    assert fleet.told[2:] == [("lost-contact", "open")]
    assert len({alert.id for alert in fleet.channel.got}) == 3


def test_a_silent_rank_is_told_by_its_number(fleet):
    fleet.go_on(600, heard=(0, 2))
    assert fleet.told == [("lost-contact:rank 1", "open")]
    assert "rank 1" in fleet.channel.got[0].title
    fleet.go_on(10, heard=(0, 1, 2))
    assert fleet.told[1:] == [("lost-contact:rank 1", "resolved")]


def test_a_rank_or_run_that_said_that_it_ended_is_not_silent(fleet):
    fleet.end(2)
    fleet.go_on(600, heard=(0, 1))
    assert fleet.told == []
    fleet.end(1)
    fleet.end(0)
    fleet.go_on(3600)
    assert fleet.told == []


def test_an_end_that_comes_late_resolves_a_silence(fleet):
    fleet.go_on(600)
    fleet.end(0)
    fleet.go_on(10)
    assert fleet.told == [("lost-contact", "open"), ("lost-contact", "resolved")]


def test_a_server_that_was_off_blames_no_run(fleet):
    fleet.now += 4 * 3600  # in which nobody listened
    fleet.restart()
    fleet.go_on(60)
    fleet.go_on(300, heard=(0, 1, 2))
    assert fleet.told == []


def test_a_machine_that_slept_blames_no_run(fleet):
    fleet.go_on(30, heard=(0, 1, 2))
    fleet.now += 8 * 3600
    fleet.go_on(600, heard=(0, 1, 2))
    assert fleet.told == []


def test_a_restart_repeats_nothing(fleet):
    fleet.go_on(600)
    for _ in range(5):
        fleet.restart()
        fleet.go_on(600)
    assert fleet.told == [("lost-contact", "open")]


def test_a_run_that_was_lost_long_ago_is_left_in_peace(fleet):
    fleet.now += 3 * 24 * 3600
    fleet.restart()
    fleet.go_on(3600)
    assert fleet.told == []
