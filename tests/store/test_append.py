"""Batches: once, in order, whole or not at all."""

import numpy as np
import pytest

from trainvitals.app.retention import Policy
from trainvitals.app.store import InvalidRecord, SequenceGap, StoreError
from trainvitals.app.store.status import status
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.records import Batch, End, Event, Histograms, Layout, Row, Sample, Step


@pytest.fixture
def begun(sender):
    """A run of two layers with three samples, stored."""
    stream = sender().start(config={"lr": 0.1}).layout()
    for step in range(3):
        stream.sample(step, [[1.0, 2.0], [3.0, 4.0]], scalars={"loss": 1.0})
    stream.send()
    return stream


def steps(store, name="loss"):
    return store.series("run-1", [name])[name].steps.tolist()


def test_a_batch_twice_is_stored_once(store, begun):
    version = store.run("run-1").version
    receipt = begun.send(first=0)
    assert (receipt.next, receipt.stored) == (5, 0)
    assert steps(store) == [0, 1, 2]
    assert store.run("run-1").version == version


def test_of_an_overlapping_batch_only_the_end_is_stored(store, begun):
    begun.scalars(3, loss=0.5)
    receipt = begun.send(first=2)
    assert (receipt.next, receipt.stored) == (6, 1)
    assert steps(store) == [0, 1, 2, 3]


def test_a_gap_is_refused_and_says_what_is_expected(store, begun):
    begun.scalars(3, loss=0.5).scalars(4, loss=0.5)
    with pytest.raises(SequenceGap) as caught:
        begun.send(first=6)
    assert caught.value.expected == 5
    assert store.next_seq("run-1", "a1", 0) == 5


def test_a_heartbeat_moves_the_time_of_contact_alone(store, begun):
    version = store.run("run-1").version
    assert begun.send(at=1e9 + 30).next == 5
    run = store.run("run-1")
    assert (run.last_seen, run.version) == (1e9 + 30, version)


def test_a_heartbeat_of_an_unknown_run_is_no_run(store):
    batch = Batch(version=1, run="other", attempt="a1", rank=0, first=7, records=[])
    assert store.append(batch, 1e9).next == 0
    assert store.runs() == []


@pytest.mark.parametrize(
    "bad",
    [
        {"samples": [Sample(group=0, values=b"\0" * 12)]},
        {"samples": [Sample(group=0, values=b"")]},
        {"samples": [Sample(group=7, values=b"\0" * 16)]},
        {"samples": [Sample(group=-1, values=b"\0" * 8)]},
        {"histograms": [Histograms(group=0, kind="weight", counts=b"\0" * 5)]},
        {"histograms": [Histograms(group=7, kind="weight", counts=b"\0" * 4)]},
        {
            "histograms": [
                Histograms(group=0, kind="weight", counts=b"\x5f\0\2\0" + b"\1\0\0\0" * 2)
            ]
        },
    ],
)
def test_a_record_that_does_not_fit_leaves_nothing_of_its_batch(store, begun, bad):
    begun.scalars(3, loss=0.5, fresh=1.0)
    begun.make(Event, step=3, kind="monitor")
    begun.make(Step, step=4, scalars={"loss": 0.1}, **bad)
    before = store.run("run-1")
    with pytest.raises(InvalidRecord, match="Record 7"):
        begun.send()
    assert store.run("run-1") == before
    assert store.next_seq("run-1", "a1", 0) == 5
    assert steps(store) == [0, 1, 2]
    assert store.scalar_names("run-1") == ["loss"]
    assert store.events("run-1") == []


@pytest.mark.parametrize("change", [{"columns": ["std"]}, {"kind": "parameter"}])
def test_a_group_keeps_its_columns_and_kind(begun, change):
    with pytest.raises(InvalidRecord, match="new number"):
        begun.layout(**change).send()


def test_a_stream_begins_with_its_start(sender):
    with pytest.raises(InvalidRecord):
        sender().scalars(0, loss=1.0).send()


def test_a_run_is_described_by_its_newest_attempt(store, begun, sender):
    begun.make(End, step=2, status="failed", message="out of memory").send()
    assert (store.run("run-1").status_reported, store.run("run-1").end_message) == (
        "failed",
        "out of memory",
    )
    sender(attempt="a2", rank=1).start(name="rank one").send()
    sender(attempt="a2").start(name="again", config={"lr": 0.2}, world_size=2).send()
    sender(attempt="a1", rank=1).start(name="late").send()
    run = store.run("run-1")
    assert (run.name, run.config, run.world_size) == ("again", {"lr": 0.2}, 2)
    assert run.attempts == ["a1", "a2"]
    assert run.status_reported == ""
    assert run.last_step == 2


def test_a_run_counts_as_lost_after_15_seconds_of_silence_unless_it_ended(store, begun):
    assert status(store.run("run-1"), 1e9 + 15) == "running"
    assert status(store.run("run-1"), 1e9 + 15.1) == "lost contact"
    begun.make(End, step=2, status="finished").send()
    assert status(store.run("run-1"), 1e9 + 1000) == "finished"


def test_a_deleted_run_leaves_no_row(store, begun):
    counts = pack_counts(np.ones((2, 96), int))
    for step in range(3, 300):
        begun.sample(step, [[1, 2], [3, 4]], scalars={"loss": 1.0})
    begun.make(Step, step=300, histograms=[Histograms(group=0, kind="activation", counts=counts)])
    begun.make(Event, step=300, kind="monitor").send()
    assert store.claim("me", 60, 1e9) == ["run-1"]
    assert store.delete_run("run-1", 1e9) is True
    assert store.delete_run("run-1", 1e9) is False
    for removal in store.removals(Policy(), 2e9):
        assert removal.what == "purge"
        list(store.remove(removal, 2e9))
    with store._database.read() as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        left = {
            name: connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0]
            for (name,) in tables.fetchall()
            if name != "sqlite_sequence"
        }
    assert left.pop("gone") == 1  # its id, so that its processes can be told
    assert set(left.values()) == {0}, left


def test_the_newest_run_comes_first(store, sender):
    for number in range(3):
        sender(run=f"run-{number}").start().send(at=1e9 - number)
    assert [run.id for run in store.runs()] == ["run-0", "run-1", "run-2"]
    assert [run.id for run in store.runs(limit=1)] == ["run-0"]


def test_the_newest_layout_of_each_group_is_told(store, begun):
    begun.layout(["fc1", "fc2", "fc3"]).layout(["w"], group=1, kind="parameter").send()
    first, second = store.layouts("run-1")
    assert [row.name for row in first.rows] == ["fc1", "fc2", "fc3"]
    assert second.kind == "parameter"


def test_a_layout_of_the_same_rows_changes_what_is_said_of_them(store, begun):
    rows = [Row(name="fc1", type="Linear"), Row(name="fc2", trainable=False)]
    begun.make(
        Layout, step=3, group=0, kind="activation", rows=rows, columns=["std", "rms"]
    ).sample(3, [[9.0, 2.0], [3.0, 4.0]]).send()
    layout, step, values = store.latest("run-1", "activation")
    assert layout.rows == rows
    assert (step, values.tolist()) == (3, [[9.0, 2.0], [3.0, 4.0]])
    matrix = store.matrix("run-1", "activation", "std")
    assert matrix.mean.tolist() == [[1.0, 1.0, 1.0, 9.0], [3.0] * 4]


def test_events_come_in_order_without_those_of_steps_recorded_anew(store, begun, sender):
    for step in (2, 50, 10):
        begun.make(Event, step=step, kind="monitor", message=str(step))
    begun.send()
    again = sender(attempt="a2").start().scalars(20, loss=1.0)
    again.make(Event, step=30, kind="monitor", message="30").send()
    assert [event.message for event in store.events("run-1")] == ["2", "10", "30"]
    assert [event.message for event in store.events("run-1", limit=2)] == ["10", "30"]


def test_a_closed_store_and_a_file_that_is_no_database_are_store_errors(store, tmp_path):
    store.close()
    with pytest.raises(StoreError):
        store.runs()
    (tmp_path / "text.db").write_text("no database at all, just some text" * 100)
    with pytest.raises(StoreError):
        type(store).open(tmp_path / "text.db")


def test_configuration_that_comes_later_is_added(store, sender):
    sender().start(config={"lr": 0.1, "seed": 1}).make(
        Event, step=0, kind="config", data={"seed": 2, "depth": 3}
    ).send()
    assert store.run("run-1").config == {"lr": 0.1, "seed": 2, "depth": 3}


def test_of_configuration_without_end_as_much_is_kept_as_has_room(store, sender):
    stream = sender().start(config={"lr": 0.1})
    for index in range(3):
        stream.make(Event, step=0, kind="config", data={f"text{index}": "x" * 100_000})
    stream.send()
    assert set(store.run("run-1").config) == {"lr", "text0", "text1"}
