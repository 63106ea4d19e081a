"""Replicas of a model on two ranks: one run, statistics of rank 0, a guard and heartbeats on every rank."""

import itertools
import zlib
from pathlib import Path

import pytest
from distributed.launching import Streams, launch, streams_in
from distributed.ranks import FAULT, SCENARIOS, STEPS, batch

from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.finding import Finding
from trainvitals.app.store.types import Stream
from trainvitals.hooks.wire.observed import Observed
from trainvitals.hooks.wire.records import End, Event, Start, Step

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two spawned ranks have recorded all scenarios. They fail when a watched step differs from another."""
    folder = tmp_path_factory.mktemp("spawned")
    done = launch(folder, "spawn", "all")
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def events(streams: Streams, rank: int) -> list[Event]:
    return [record for record in streams[rank][1] if isinstance(record, Event)]


def findings(streams: Streams) -> list[Finding]:
    """What the rules find, the same whichever rank's records come in first."""
    answers = []
    for order in itertools.permutations(streams):
        engine = Engine()
        for rank in order:
            meta, records = streams[rank]
            for record in records:
                engine.feed(Stream(meta.attempt, rank), record)
        answers.append(engine.findings())
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "twice"])
def test_ranks_share_a_run_and_an_attempt_without_being_told(folder: Path, scenario: str) -> None:
    streams = streams_in(folder / scenario)
    assert sorted(streams) == [0, 1]
    assert len({(meta.run, meta.attempt) for meta, _ in streams.values()}) == 1
    for _, records in streams.values():
        assert isinstance(records[0], Start) and records[0].world_size == 2
        assert isinstance(records[-1], End) and records[-1].status == "finished"
        assert not [r for r in records if isinstance(r, Event) and r.kind == "monitor"]


def test_each_of_several_runs_has_an_id_of_its_own(folder: Path) -> None:
    runs = sorted((folder / "twice" / ".trainvitals").iterdir())
    ids = [run.name for run in runs if run.is_dir()]
    assert len(set(ids)) == 2
    for run in ids:
        ranks = sorted(
            path.name[-3:] for path in (folder / "twice" / ".trainvitals" / run).iterdir()
        )
        assert ranks == ["-r0", "-r1"]


def test_only_rank_0_records_statistics(folder: Path) -> None:
    streams = streams_in(folder / "healthy")
    steps = [record for record in streams[0][1] if isinstance(record, Step)]
    assert {0} <= {record.step for record in steps} <= set(range(STEPS))
    assert any(record.samples for record in steps)
    start, *told, end = streams[1][1]
    assert isinstance(start, Start) and isinstance(end, End)
    assert [record.step for record in told] == [0, 1, 2, 4]
    assert all(
        record.observed == Observed(peer=record.observed.peer)
        and not record.scalars
        and not record.samples
        for record in told
    )
    assert findings(streams) == [] or all(f.severity == "info" for f in findings(streams))


PLACES = {"forward": "2", "input": "0", "loss": ""}


@pytest.mark.parametrize("direction", PLACES)
def test_a_fault_of_rank_1_is_its_own(folder: Path, direction: str) -> None:
    """Rank, place, direction and step, though both ranks get the same broken gradients."""
    streams = streams_in(folder / direction)
    (event,) = events(streams, 1)
    assert (event.step, event.data["direction"], event.data["rank"]) == (FAULT, direction, 1)
    assert event.data.get("layer", "") == PLACES[direction]
    (other,) = events(streams, 0)
    assert (other.step, other.data["direction"]) == (FAULT, "backward")
    roots = [found for found in findings(streams) if found.root and found.severity == "critical"]
    (root,) = roots
    assert root.first_step == FAULT
    assert f"at step {FAULT} on rank 1" in root.title
    assert root.evidence["origin"]["direction"] == direction


def test_a_gradient_that_broke_on_rank_1_is_seen_by_both(folder: Path) -> None:
    """Once averaged it is the same on all ranks; then no rank is named."""
    streams = streams_in(folder / "backward")
    for rank in (0, 1):
        (event,) = events(streams, rank)
        assert (event.step, event.data["direction"]) == (FAULT, "backward")
        assert event.data["parameter"] == "0.bias"
    (root,) = [found for found in findings(streams) if found.root]
    assert "0.bias" in root.title and "rank" not in root.title


def test_the_batch_can_be_found_again(folder: Path) -> None:
    streams = streams_in(folder / "forward")
    for rank in (0, 1):
        inputs, _ = batch(rank, FAULT)
        checksum = f"{zlib.crc32(inputs.numpy().tobytes()):08x}"
        (event,) = events(streams, rank)
        assert event.data["fingerprint"] == [
            {"shape": [8, 4], "dtype": "float32", "crc32": checksum}
        ]


def test_torchrun_gives_all_ranks_a_run_before_there_is_a_process_group(tmp_path: Path) -> None:
    done = launch(tmp_path, "torchrun")
    assert done.returncode == 0, done.stderr[-4000:]
    streams = streams_in(tmp_path)
    assert len({(meta.run, meta.attempt) for meta, _ in streams.values()}) == 1
    (event,) = events(streams, 1)
    assert (event.step, event.layer) == (FAULT, "2")


def test_a_rank_that_is_killed_leaves_the_others_and_what_it_recorded(tmp_path: Path) -> None:
    done = launch(tmp_path, "spawn", "killed")
    assert done.returncode == 0, done.stderr[-4000:]
    streams = streams_in(tmp_path / "killed")
    last = streams[0][1][-1]
    assert isinstance(last, End) and last.step == 7
    assert isinstance(streams[1][1][0], Start) and not isinstance(streams[1][1][-1], End)
