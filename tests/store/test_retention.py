"""Deleting with undo, retention, and room that is given back: in steps that let others write."""

import time

import numpy as np
import pytest

from trainvitals.app.janitor import clear
from trainvitals.app.retention import Keep, Policy, RetentionError
from trainvitals.app.store import RunDeleted, Store, erase
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.records import Histograms, Step

DAY = 86_400
NOW = 2e9


def no_rest(_seconds):
    return False


@pytest.fixture
def silent(sender):
    """Store a run that was last heard of so many days ago."""

    def make(run, days, *, project="digits", steps=3, histograms=False, rows=2):
        stream = sender(run=run).start(project=project).layout([f"fc{i}" for i in range(rows)])
        random = np.random.default_rng(1)
        for step in range(steps):
            counts = pack_counts(random.integers(1, 1000, (rows, 96)))
            stream.make(
                Step,
                step=step,
                scalars={"loss": random.random()},
                histograms=[Histograms(group=0, kind="activation", counts=counts)]
                if histograms
                else [],
            )
        stream.send(at=NOW - days * DAY)
        return stream

    return make


@pytest.fixture
def prune(store):
    def run(policy, now=NOW):
        due = store.removals(Policy.parse(policy), now)
        clear(store, due, now, no_rest)
        return [(item.run, item.what) for item in due]

    return run


def ids(store, shelf="active"):
    return {run.id for run in store.runs(shelf=shelf)}


def count(store, table):
    with store._database.read() as connection:
        return connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]


def test_a_policy_is_read_with_its_projects():
    policy = Policy.parse("days=90, runs = 200 size=1.5GB; digits: days=7; a: b: runs=forever")
    assert policy.default == Keep(days=90, runs=200)
    assert policy.size == 1_500_000_000
    assert policy.of("digits") == Keep(days=7, runs=200)
    assert policy.of("a: b") == Keep(days=90, runs=None)
    assert policy.of("else") == policy.default
    assert Policy.parse("") == Policy()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("days", "days="),
        ("days=-1", "days=-1"),
        ("runs=1.5", "whole number"),
        ("weeks=2", "weeks"),
        ("size=20", "20GB"),
        ("days=9; digits days=7", "PROJECT"),
        ("days=9; digits: size=1GB", "size"),
        ("undo_days=forever", "undo_days"),
    ],
)
def test_a_policy_that_cannot_be_read_says_what_is_expected(text, word):
    with pytest.raises(RetentionError) as error:
        Policy.parse(text)
    assert word in str(error.value)


def test_without_a_policy_everything_is_kept(store, silent, prune):
    silent("old", 5000)
    assert prune("") == []
    assert ids(store) == {"old"}


def test_a_deleted_run_is_hidden_until_it_is_restored_whole(store, silent):
    stream = silent("run-1", 1)
    before = store.series("run-1", ["loss"])["loss"].mean.tolist()
    assert store.delete_run("run-1", NOW)
    assert store.run("run-1") is None
    assert ids(store) == set()
    assert store.runs(shelf="deleted")[0].deleted == NOW
    stream.scalars(3, loss=0.5).send(at=NOW)  # a training that still runs is not told to begin anew
    assert store.restore_run("run-1")
    assert not store.restore_run("run-1")
    assert store.series("run-1", ["loss"])["loss"].mean.tolist() == [*before, 0.5]


def test_the_rules_and_the_alerts_leave_a_deleted_run_alone(store, silent):
    silent("run-1", 1)
    store.delete_run("run-1", NOW)
    assert store.claim("me", 30, NOW) == []
    store.restore_run("run-1")
    assert store.claim("me", 30, NOW) == ["run-1"]


def test_a_deleted_run_is_purged_after_its_time(store, silent, prune):
    silent("run-1", 30)
    store.delete_run("run-1", NOW)
    assert prune("undo_days=7", NOW + 7 * DAY - 1) == []
    assert prune("undo_days=7", NOW + 7 * DAY) == [("run-1", "purge")]
    assert not store.restore_run("run-1")
    assert {count(store, table) for table in ("runs", "streams", "groups", "tail", "log")} == {0}


def test_a_purged_run_that_goes_on_is_told_so(store, silent, prune):
    stream = silent("run-1", 30)
    store.delete_run("run-1", NOW)
    prune("undo_days=0")
    stream.scalars(3, loss=0.5)
    with pytest.raises(RunDeleted):
        stream.send()
    assert store.runs() == []


def test_runs_go_by_age_and_number_in_their_project(store, silent, prune):
    for days in (40, 10, 5, 1):
        silent(f"a{days}", days, project="a")
        silent(f"b{days}", days, project="b")
    due = prune("days=30; b: runs=2")
    assert set(due) == {("a40", "delete"), ("b40", "delete"), ("b10", "delete")}
    assert ids(store) == {"a1", "a5", "a10", "b1", "b5"}
    assert ids(store, "deleted") == {"a40", "b40", "b10"}


def test_live_and_archived_runs_are_left_alone(store, silent, prune):
    silent("live", 0)
    silent("kept", 90)
    store.archive_run("kept", NOW)
    assert prune("days=0 runs=0 histogram_days=0 size=0MB") == []
    assert ids(store) == {"live"}
    assert ids(store, "archived") == {"kept"}
    assert store.unarchive_run("kept")
    assert prune("days=30") == [("kept", "delete")]


def test_old_histograms_go_and_the_rest_of_their_run_stays(store, silent, prune):
    silent("old", 60, histograms=True)
    silent("new", 2, histograms=True)
    before = store.series("old", ["loss"])["loss"].mean.tolist()
    assert prune("histogram_days=30") == [("old", "histograms")]
    assert len(store.histograms("old", "activation", "fc1").steps) == 0
    assert len(store.histograms("new", "activation", "fc1").steps) == 3
    assert store.series("old", ["loss"])["loss"].mean.tolist() == before
    assert prune("histogram_days=30") == []


def test_for_the_size_deleted_runs_go_first_then_histograms_then_old_runs(store, silent):
    for days in (30, 20, 10):
        silent(f"run-{days}", days, steps=300, histograms=True, rows=20)
    silent("gone", 5, steps=300, rows=20)
    store.delete_run("gone", NOW)
    with store._database.read() as connection:
        held = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count")
        ]
    used = held[0] * held[1]
    due = store.removals(Policy(size=0), NOW)
    assert [(item.run, item.what) for item in due] == [
        ("gone", "purge"),
        *((f"run-{days}", "histograms") for days in (30, 20, 10)),
        *((f"run-{days}", "purge") for days in (30, 20, 10)),
    ]
    estimated = sum(item.bytes for item in due)
    assert 0.6 * used < estimated < 1.1 * used
    few = store.removals(Policy(size=used - due[0].bytes - due[1].bytes), NOW)
    assert [(item.run, item.what) for item in few] == [("gone", "purge"), ("run-30", "histograms")]
    clear(store, due, NOW, no_rest)
    assert ids(store) == set()


def test_the_file_gives_its_room_back(store, silent, prune):
    silent("big", 30, steps=600, histograms=True, rows=40)
    with store._database.bare() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    full = store._database.path.stat().st_size
    assert store.info().shrinks
    store.delete_run("big", NOW)
    prune("undo_days=0")
    assert store.info().free_bytes == 0
    assert store._database.path.stat().st_size == store.info().bytes < full / 5


def test_a_step_takes_few_rows_and_others_write_between_two(store, sender, monkeypatch):
    """Each step is one transaction that ends once its time is up, so a batch never waits for a whole run."""
    big = sender(run="big").start().layout()
    for step in range(1500):
        big.sample(step, [[1, 2], [3, 4]], scalars={"loss": step})
        if step % 20 == 0:
            big.send(at=NOW - 30 * DAY)
    store.delete_run("big", NOW)
    monkeypatch.setattr(erase, "HOLD_S", 0.0)
    other = sender(run="other").start()
    (removal,) = store.removals(Policy(undo_days=0.0), NOW)
    steps = 0
    for _ in store.remove(removal, NOW):
        other.scalars(steps, loss=1.0).send(at=NOW)
        steps += 1
        assert store.next_seq("other", "a1", 0) == steps + 1
        assert steps < 1000
    assert steps > 10
    assert count(store, "runs") == 1
    assert ids(store) == {"other"}


def test_what_was_left_half_done_goes_on(store, silent):
    silent("run-1", 30, steps=400, histograms=True)
    store.delete_run("run-1", NOW)
    policy = Policy(undo_days=0.0)
    (removal,) = store.removals(policy, NOW)
    next(steps := store.remove(removal, NOW))
    steps.close()
    assert not store.restore_run("run-1")
    assert store.info().purging == 1
    assert store.info().deleted == 0
    clear(store, store.removals(policy, NOW), NOW, no_rest)
    assert store.info().purging == 0
    assert count(store, "histograms") == 0


def test_a_run_restored_in_the_last_moment_stays(store, silent):
    silent("run-1", 30)
    store.delete_run("run-1", NOW - 8 * DAY)
    due = store.removals(Policy(), NOW)
    store.restore_run("run-1")
    clear(store, due, NOW, no_rest)
    assert ids(store) == {"run-1"}
    assert store.series("run-1", ["loss"])["loss"].steps.tolist() == [0, 1, 2]


@pytest.mark.slow
def test_ingest_waits_for_no_step_longer_than_its_hold(tmp_path, sender_to):
    """Beside a purge of many megabytes, most of the processor time of a transaction is the hold itself."""
    with Store.open(tmp_path / "a.db") as store:
        big = sender_to(store, run="big").start().layout([f"fc{i}" for i in range(200)])
        random = np.random.default_rng(2)
        for step in range(600):
            counts = pack_counts(random.integers(1, 10**6, (200, 96)))
            histograms = [Histograms(group=0, kind="activation", counts=counts)]
            big.make(Step, step=step, histograms=histograms)
            if step % 50 == 49:
                big.send(at=NOW - 30 * DAY)
        store.delete_run("big", NOW)
        (removal,) = store.removals(Policy(undo_days=0.0), NOW)
        assert removal.bytes > 15e6
        used = []
        for steps in (store.remove(removal, NOW), store.shrink()):
            before = time.thread_time()
            for _ in steps:
                used.append(time.thread_time() - before)
                before = time.thread_time()
        assert sorted(used)[len(used) // 2] < 0.1
        assert len(used) > 3
