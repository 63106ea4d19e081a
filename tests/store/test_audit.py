"""What the audit of a run finds: nothing in a sound database, and each thing that was changed in a damaged one."""

import shutil
import sqlite3
from functools import partial

import numpy as np
import pytest

from trainvitals.app.store import Store, tiles
from trainvitals.app.store.audit import audit
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.records import End, Event, Histograms, Step

STEPS = 32 * 256 + 300
"""Enough for a block of level 2, some nodes that wait for theirs, and a tail."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory, sender_to):
    """A database with one run of all sorts of records."""
    path = tmp_path_factory.mktemp("db") / "t.db"
    random = np.random.default_rng(0)
    with Store.open(path) as store:
        stream = sender_to(store).start().layout([f"fc{number}" for number in range(20)])
        for step in range(STEPS):
            values = random.normal(size=(20, 2))
            values[random.random(values.shape) < 0.01] = np.nan
            stream.sample(step, values, scalars={"loss": random.normal()})
        stream.scalars(1050, late=1.0)
        kept = Histograms(group=0, kind="weight", counts=pack_counts(np.ones((20, 96), int)))
        stream.make(Step, step=STEPS, histograms=[kept]).make(Event, step=7, kind="monitor")
        stream.make(End, step=STEPS, status="finished")
        while stream.sent < len(stream.records):
            stream.send(last=stream.sent + int(random.integers(1, 400)))
    return path


@pytest.fixture
def damaged(tmp_path, filled):
    """Run SQL on a copy of the database, and audit it."""
    path = tmp_path / "t.db"
    shutil.copy(filled, path)

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
    """A tile of 16 rows of 256 values, with one of other sign."""
    values = tiles.unpack_values(body, "<f4", 16, 256).copy()
    values[3, 5] *= -1
    return tiles.pack_values(values)[0]


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
        ("UPDATE streams SET next = next + 1", f"the stream before {STEPS + 7}"),
        ("UPDATE streams SET last_step = 3", "marks say"),
        ("DELETE FROM events", "events"),
        ("DELETE FROM tail WHERE grp = 1", "a tail of 0 records"),
        ("DELETE FROM blocks WHERE level = 0 AND block = 1", "block 2 where 1 belongs"),
        ("UPDATE blocks SET high = 9 WHERE level = 1 AND block = 2", "reach of level 1, block 2"),
        ("UPDATE blocks SET high = 9 WHERE level = 2", "reach of level 2"),
        ("UPDATE groups SET count = count + 1", "in all"),
        ("UPDATE histograms SET body = cut(body)", f"weight histograms of step {STEPS}"),
        ("DELETE FROM tiles WHERE level = 0 AND tile = 1 AND col = 1", "level 1, column 1"),
        ("DELETE FROM tiles WHERE level = 2 AND tile = 1 AND col = 0", "level 2, column 0"),
        ("DELETE FROM fresh WHERE col = 1", "fresh nodes of column 1, block 32"),
        ("UPDATE fresh SET block = 3 WHERE col = 0", "fresh nodes of column 0, block 3"),
        (
            "UPDATE tiles SET body = negated(body) WHERE level = 0 AND tile = 0 AND col = 1 "
            "AND block = 1 AND grp = 1",
            "level 1, column 1, tile 0, block 0",
        ),
        ("UPDATE tiles SET body = cut(body) WHERE level = 1", "cannot be read"),
        (
            "UPDATE tiles SET block = 77 WHERE level = 0 AND block = 2 AND grp = "
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
