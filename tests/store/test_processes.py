"""Several processes at once, killed at any moment."""

import random
import sqlite3
import subprocess
import sys
import time

import pytest

from trainvitals.app.store import Store, StoreError
from trainvitals.app.store.migrations import MIGRATIONS
from trainvitals.hooks.wire.records import Step

WRITER = """
import sys
import numpy as np
from trainvitals.app.store import Store
from trainvitals.hooks.wire.codec import pack_floats
from trainvitals.hooks.wire.records import Batch, Layout, Row, Sample, Start, Step

path, rank, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows = [Row(name=f"fc{n}") for n in range(9)]
with Store.open(path) as store:
    seq = store.next_seq("run-1", f"a{rank}", 0)
    while seq < count:
        records = []
        for number in range(seq, min(seq + 7, count)):
            if number == 0:
                records.append(Start(seq=0, time=1e9, project="p", name="n"))
            elif number == 1:
                records.append(Layout(seq=1, time=1e9, step=0, group=0, kind="activation",
                                      rows=rows, columns=["std"]))
            else:
                sample = Sample(group=0, values=pack_floats(np.full((9, 1), number)))
                records.append(Step(seq=number, time=1e9, step=number,
                                    scalars={"loss": number}, samples=[sample]))
        batch = Batch(version=1, run="run-1", attempt=f"a{rank}", rank=0, first=seq, records=records)
        seq = store.append(batch, 1e9).next
        print(seq, flush=True)
"""


def writer(path, rank, count):
    command = [sys.executable, "-c", WRITER, str(path), str(rank), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check(store, attempt, count):
    """Records 0 to before `count` are there once, with their values."""
    cursor, found = {}, []
    while page := store.replay("run-1", cursor, 500):
        for stream, record in page:
            cursor[stream.key] = record.seq + 1
            if stream.attempt == attempt:
                found.append(record)
    assert [record.seq for record in found] == list(range(count))
    for record in found:
        if isinstance(record, Step):
            assert record.scalars == {"loss": record.seq}
            assert len(record.samples[0].values) == 36


def integrity(path):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


@pytest.mark.slow
def test_processes_append_at_the_same_time(tmp_path):
    path = tmp_path / "t.db"
    writers = [writer(path, rank, 1200) for rank in range(3)]
    for process in writers:
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors
    with Store.open(path) as store:
        for rank in range(3):
            check(store, f"a{rank}", 1200)
    assert integrity(path) == "ok"


@pytest.mark.slow
def test_a_kill_loses_nothing_acknowledged_and_doubles_nothing(tmp_path):
    path = tmp_path / "t.db"
    chance = random.Random(0)
    acknowledged = 0
    for _ in range(15):
        process = writer(path, 0, 1_000_000)
        first = process.stdout.readline()
        assert int(first) > acknowledged
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        told = [int(line) for line in [first, *process.communicate()[0].splitlines()] if line]
        with Store.open(path) as store:
            stored = store.next_seq("run-1", "a0", 0)
            assert max(told) <= stored <= max(told) + 7  # the last answer may not have got out
            acknowledged = stored
            series = store.series("run-1", ["loss"], points=10**6)["loss"]
            assert series.last.tolist() == list(range(2, stored))
        assert integrity(path) == "ok"
    with Store.open(path) as store:
        check(store, "a0", acknowledged)
        matrix = store.matrix("run-1", "activation", "std", buckets=10**6)
        assert matrix.mean[8].tolist() == list(range(2, acknowledged))


def test_every_migration_is_applied_in_order_and_once(tmp_path, monkeypatch):
    path = tmp_path / "t.db"
    Store.open(path).close()
    more = (
        *MIGRATIONS,
        "CREATE TABLE extra (x);\nINSERT INTO extra VALUES (1);",
        "ALTER TABLE extra ADD COLUMN y;\nUPDATE extra SET y = x + 1;",
    )
    with monkeypatch.context() as patch:
        patch.setattr("trainvitals.app.store.migrations.MIGRATIONS", more)
        for _ in range(2):
            Store.open(path).close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT x, y FROM extra").fetchall() == [(1, 2)]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(more),)
    connection.close()
    with pytest.raises(StoreError, match="release"):
        Store.open(path)


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "t.db"
    Store.open(path).close()
    broken = (*MIGRATIONS, "CREATE TABLE extra (x);\nINSERT INTO nowhere VALUES (1);")
    with monkeypatch.context() as patch:
        patch.setattr("trainvitals.app.store.migrations.MIGRATIONS", broken)
        with pytest.raises(StoreError):
            Store.open(path)
    Store.open(path).close()
