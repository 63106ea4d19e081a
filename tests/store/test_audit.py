"""What the audit of a run finds: nothing in a sound database, and each thing that was changed in a damaged one."""

import sqlite3
from functools import partial

import numpy as np
import pytest

from trainvitals.app.store import Store, tiles
from trainvitals.app.store.audit import audit
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.records import End, Event, Histograms, Step


@pytest.fixture
def damaged(tmp_path, sender_to):
    """Fill a store, run SQL on its file, and audit it."""
    path = tmp_path / "t.db"
    random = np.random.default_rng(0)
    with Store.open(path) as store:
        stream = sender_to(store).start().layout([f"fc{number}" for number in range(40)])
        counts = pack_counts(np.ones((40, 96), int))
        for step in range(1100):
            values = random.normal(size=(40, 2))
            values[random.random(values.shape) < 0.01] = np.nan
            stream.sample(step, values, scalars={"loss": random.normal()})
        stream.scalars(1050, late=1.0)
        kept = Histograms(group=0, kind="weight", counts=counts)
        stream.make(Step, step=1100, histograms=[kept]).make(Event, step=7, kind="monitor")
        stream.make(End, step=1100, status="finished")
        while stream.sent < len(stream.records):
            stream.send(last=stream.sent + int(random.integers(1, 90)))

    def change(statement="SELECT 1", *values):
        connection = sqlite3.connect(path)
        connection.create_function("negated", 1, negated)
        connection.create_function("cut", 1, lambda body: body[:-3])
        with connection:
            changed = connection.execute(statement, values)
            assert statement == "SELECT 1" or changed.rowcount > 0
        found = audit(connection, "run-1")
        connection.close()
        return found

    return change


def negated(body):
    """A tile of 8 rows of float32 with one value of other sign."""
    values = np.frombuffer(tiles.decompress(body), np.uint8).copy()
    values[-5] ^= 0x80
    return tiles.compress(values.tobytes())


def test_a_sound_run_has_nothing_wrong(damaged):
    assert damaged() == []


def test_a_run_that_is_not_there_is_said_to_be_missing(tmp_path):
    with Store.open(tmp_path / "t.db") as store, store._database.read() as connection:
        assert audit(connection, "nope") == ["There is no run 'nope'."]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM log WHERE last = (SELECT MIN(last) FROM log)", "where 0 belongs"),
        ("DELETE FROM log WHERE last = (SELECT MAX(last) FROM log)", "the log ends before"),
        ("UPDATE log SET body = cut(body) WHERE last > 300", "log cannot be read"),
        ("UPDATE streams SET next = next + 1", "the stream before 1107"),
        ("UPDATE streams SET last_step = 3", "marks say"),
        ("DELETE FROM events", "events"),
        ("DELETE FROM tail WHERE first > 1030", "a tail of"),
        ("DELETE FROM blocks WHERE level = 0 AND block = 1", "block 2 where 1 belongs"),
        ("UPDATE blocks SET high = 9 WHERE level = 1 AND block = 2", "reach of level 1, block 2"),
        ("UPDATE blocks SET high = 9 WHERE level = 2", "reach of level 2"),
        ("UPDATE groups SET count = count + 1", "in all"),
        ("UPDATE histograms SET body = cut(body)", "weight histograms of step 1100"),
        ("DELETE FROM tiles WHERE level = 0 AND tile = 3 AND col = 1", "level 1, column 1"),
        ("DELETE FROM tiles WHERE level = 2 AND tile = 1 AND col = 0", "level 2, column 0"),
        (
            "UPDATE tiles SET body = negated(body) WHERE level = 0 AND tile = 2 AND col = 1 "
            "AND block = 1",
            "level 1, column 1, tile 0, block 1",
        ),
        ("UPDATE tiles SET body = cut(body) WHERE level = 1", "cannot be read"),
        (
            "UPDATE tiles SET block = 7 WHERE level = 0 AND block = 2 AND grp = "
            "(SELECT key FROM groups WHERE number = -1)",
            "scalar 'loss' differs from the log in rows 512",
        ),
    ],
)
def test_damage_is_found(damaged, statement, said):
    found = damaged(statement)
    assert any(said in line for line in found), found


def test_every_other_stream_is_checked_on(tmp_path, sender_to):
    path = tmp_path / "t.db"
    with Store.open(path) as store:
        make = partial(sender_to, store)
        for attempt, rank in [("a1", 0), ("a1", 1), ("a2", 0)]:
            stream = make(attempt=attempt, rank=rank).start().layout()
            for step in range(300):
                stream.sample(step, [[1.0, 2.0]] * 2)
            stream.send()
        with store._database.write() as connection:
            connection.execute("UPDATE log SET body = x'00' WHERE stream = 2")
            found = audit(connection, "run-1")
        assert found
        assert all(line.startswith("Attempt a1, rank 1") for line in found), found
