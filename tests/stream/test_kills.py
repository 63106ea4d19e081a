"""The proof of the kill benchmark: that it sees what is wrong, and small runs of it and of catching up."""

import sqlite3

import pytest

from benchmarks.stream import catchup, kills, proof
from benchmarks.stream.live import within
from benchmarks.stream.streams import Stream
from trainvitals.app.store import Store
from trainvitals.hooks.client import encode
from trainvitals.hooks.wire import codec


@pytest.fixture
def stream():
    return Stream("run-1", layers=8, columns=3, pool=7)


def test_lost_doubled_and_changed_records_are_seen(stream):
    records = [codec.decode_record(stream.payload(seq)) for seq in range(9)]
    assert proof.compare(records, stream.payload, 9, "here") == []
    assert "10 acknowledged, 9 stored" in proof.compare(records, stream.payload, 10, "here")[0]
    assert "missing" in proof.compare(records[:4] + records[5:], stream.payload, 8, "here")[0]
    assert "doubled" in proof.compare([*records, records[3]], stream.payload, 9, "here")[0]
    other = Stream("run-1", layers=8, columns=3, pool=7, seed=1)
    assert "7 records are not what was sent" in proof.compare(records, other.payload, 9, "here")[0]


def test_a_summary_that_does_not_fit_its_records_is_seen(stream, tmp_path):
    path = tmp_path / "t.db"
    with Store.open(path) as store:
        for first in range(0, 600, 100):
            payloads = [stream.payload(seq) for seq in range(first, first + 100)]
            store.append(codec.decode_batch(encode("run-1", "a1", 0, first, payloads)), 1e9)
    assert proof.sound(path) == []
    connection = sqlite3.connect(path)
    connection.execute("UPDATE streams SET last_step = last_step + 1")
    connection.commit()
    connection.close()
    assert proof.sound(path) != []


@pytest.mark.slow
def test_killed_servers_lose_and_double_nothing():
    tally = kills.kill_servers(4, seed=1)
    assert tally.kills.total() == 4
    assert tally.wrong == []
    assert tally.stored >= tally.acknowledged > 0


@pytest.mark.slow
def test_killed_trainings_lose_at_most_their_last_moment_and_double_nothing():
    tally = kills.kill_trainers(2, seed=1)
    assert tally.kills.total() == 2
    assert tally.wrong == []
    assert tally.stored >= tally.acknowledged
    assert tally.lost_s <= 1.0


@pytest.mark.slow
def test_who_comes_back_after_an_hour_delivers_everything_while_live_runs_go_on():
    done = catchup.measure(0.1, history=50, quiet_s=1.0)
    assert done.wrong == []
    assert done.records == 3_603
    assert within(done.times.batches, done.quiet[0], done.busy[1])
    assert done.times.errors == []
