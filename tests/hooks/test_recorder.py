"""What is handed to the recorder is written in order, and costs the training thread an append."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainvitals.hooks import recorder as module
from trainvitals.hooks import spool
from trainvitals.hooks.recorder import Recorder
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.records import End, Event, Record, Sample, Start, Step
from trainvitals.hooks.wire.scalars import expand


@pytest.fixture
def writer(tmp_path: Path) -> spool.SpoolWriter:
    return spool.SpoolWriter(tmp_path, spool.Meta(run="r", attempt="a", rank=0))


@pytest.fixture
def recorder(writer: spool.SpoolWriter) -> Iterator[Recorder]:
    made = Recorder(writer)
    made.start(project="p", name="n")
    yield made
    made.close()


def records(writer: spool.SpoolWriter) -> list[Record]:
    return list(spool.read_stream(writer.folder))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_scalars_are_written_before_what_came_after_them(
    writer: spool.SpoolWriter, recorder: Recorder
) -> None:
    recorder.flush()
    recorder.step(step=0, scalars={"loss": 1.0})
    recorder.step(step=1, scalars={"loss": 2.0})
    recorder.step(step=1, scalars={"tv/lr/0": 0.1}, samples=[Sample(group=0, values=b"1234")])
    recorder.step(step=2, scalars={"loss": 3.0})
    recorder.event(step=3, kind="monitor")
    recorder.step(step=3, scalars={"loss": 4.0})
    recorder.step(step=3, scalars={"acc": 0.5, "loss": 4.0})
    recorder.end(step=3, status="finished")
    found = records(writer)
    assert [record.seq for record in found] == list(range(len(found)))
    steps = [step for record in found for step in expand(record)]
    assert [(step.step, step.scalars) for step in steps if isinstance(step, Step)] == [
        (0, {"loss": 1.0}),
        (1, {"loss": 2.0}),
        (1, {"tv/lr/0": 0.1}),
        (2, {"loss": 3.0}),
        (3, {"loss": 4.0}),
        (3, {"acc": 0.5, "loss": 4.0}),
    ]
    kinds = [type(step) for step in steps]
    assert kinds == [Start, Step, Step, Step, Step, Event, Step, Step, End]
    assert steps[3].samples  # type: ignore[union-attr]


def test_many_rows_become_few_records(writer: spool.SpoolWriter, recorder: Recorder) -> None:
    count = 3 * limits.MAX_SCALAR_ROWS + 1
    with recorder._writing:  # so that the thread takes none of them away
        for step in range(count):
            recorder.step(step=step, scalars={"loss": float(step)})
    recorder.flush()
    found = records(writer)
    assert len(found) == 5
    steps = [step for record in found[1:] for step in expand(record)]
    assert [step.step for step in steps if isinstance(step, Step)] == list(range(count))


def test_the_training_thread_never_waits_for_the_disk(recorder: Recorder) -> None:
    with recorder._writing:  # as while the disk stands still
        for step in range(1_000):
            recorder.step(step=step, scalars={"loss": 1.0})
            recorder.step(step=step, scalars={}, samples=[Sample(group=0, values=b"")])
        assert len(recorder._buffer) >= 2_000


def test_a_disk_that_stands_still_costs_bounded_memory(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.flush()
    monkeypatch.setattr(module, "MAX_BUFFERED", 100)
    with recorder._writing:
        for step in range(150):
            recorder.step(step=step, scalars={"loss": 1.0})
    assert recorder.dropped == 50
    assert capsys.readouterr().err.count("too slow") == 1


def test_the_thread_sleeps_until_there_is_something_to_write(
    writer: spool.SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_INTERVAL", 0.01)
    flushes: list[None] = []
    flush = Recorder.flush

    def counted(self: Recorder) -> None:
        flushes.append(None)
        flush(self)

    monkeypatch.setattr(Recorder, "flush", counted)
    recorder = Recorder(writer)
    time.sleep(0.3)  # thirty intervals
    assert not flushes
    for count in (1, 2, 3):
        recorder.step(step=count, scalars={"loss": 1.0})
        wait_for(lambda count=count: len(records(writer)) == count)  # type: ignore[misc]
        wait_for(lambda: recorder._idle)
    seen = len(flushes)
    time.sleep(0.3)
    assert len(flushes) == seen
    recorder.close()
