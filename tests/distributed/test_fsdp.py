"""A model that FSDP2 has sharded over two ranks: the values of one process, in one reduction, and never a wait."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from distributed import sharded
from distributed.launching import Streams, launch, streams_in

import trainvitals.hooks as tv
from trainvitals.hooks.spool import find_streams, read_stream
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.columns import MISSING_BITS
from trainvitals.hooks.wire.records import End, Event, Layout, Record, Start, Step

pytestmark = pytest.mark.slow

Matrix = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have recorded all scenarios; they fail when watching changes a single bit."""
    folder = tmp_path_factory.mktemp("sharded")
    done = launch(folder, program="sharded.py")
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """What one process records of the same training."""
    folder = tmp_path_factory.mktemp("alone")
    tv.init(mode="offline", dir=folder)
    sharded.train(None)
    tv.finish()
    (stream,) = find_streams(folder / ".trainvitals")
    return list(read_stream(stream))


def layout(records: list[Record], kind: str) -> Layout:
    return [r for r in records if isinstance(r, Layout) and r.kind == kind][-1]


def samples(records: list[Record], kind: str) -> dict[int, Matrix]:
    """Step to the values of all rows and columns."""
    told = layout(records, kind)
    return {
        record.step: codec.unpack_floats(sample.values, len(told.rows), len(told.columns))
        for record in records
        if isinstance(record, Step)
        for sample in record.samples
        if sample.group == told.group
    }


def histograms(records: list[Record], kind: str) -> dict[int, npt.NDArray[np.uint32]]:
    rows = len(layout(records, "parameter").rows)
    return {
        record.step: codec.unpack_counts(found.counts, rows)
        for record in records
        if isinstance(record, Step)
        for found in record.histograms
        if found.kind == kind
    }


def norms(records: list[Record]) -> dict[int, float]:
    return {
        record.step: record.scalars["tv/grad_norm"]
        for record in records
        if isinstance(record, Step) and "tv/grad_norm" in record.scalars
    }


def problems(streams: Streams, rank: int) -> list[Event]:
    return [r for r in streams[rank][1] if isinstance(r, Event) and r.kind == "monitor"]


@pytest.mark.parametrize("scenario", ["together", "replicas"])
def test_statistics_are_those_of_one_process(
    folder: Path, alone: list[Record], scenario: str
) -> None:
    """Weights, gradients, updates and Adam's factor of parameters that ranks hold unequal parts of, or copies."""
    records = streams_in(folder / scenario)[0][1]
    ours, theirs = layout(records, "parameter"), layout(alone, "parameter")
    assert [(r.name, r.type, r.shape) for r in ours.rows] == [
        (r.name, r.type, r.shape) for r in theirs.rows
    ]
    found, expected = samples(records, "parameter"), samples(alone, "parameter")
    assert sorted(found) == sorted(expected) == [0, 4, 8]
    for step, values in expected.items():
        missing = values.view(np.uint32) == MISSING_BITS
        np.testing.assert_array_equal(found[step].view(np.uint32) == MISSING_BITS, missing)
        np.testing.assert_allclose(found[step][~missing], values[~missing], rtol=1e-5)


@pytest.mark.parametrize("kind", ["weight", "gradient"])
def test_histograms_are_those_of_one_process(folder: Path, alone: list[Record], kind: str) -> None:
    found = histograms(streams_in(folder / "together")[0][1], kind)
    expected = histograms(alone, kind)
    assert sorted(found) == sorted(expected) and found
    for step, counts in expected.items():
        np.testing.assert_array_equal(found[step], counts)


def test_the_gradient_norm_is_that_of_all_shards_before_clipping(
    folder: Path, alone: list[Record]
) -> None:
    found, expected = norms(streams_in(folder / "together")[0][1]), norms(alone)
    assert {0, 4, 8} <= set(found)
    for step in (0, 4, 8):
        assert found[step] == pytest.approx(expected[step], rel=1e-5)
        assert found[step] > sharded.MOST


def test_layers_are_called_by_their_own_classes(folder: Path, alone: list[Record]) -> None:
    records = streams_in(folder / "together")[0][1]
    for kind in ("activation", "parameter"):
        assert [r.type for r in layout(records, kind).rows] == [
            r.type for r in layout(alone, kind).rows
        ]


def batches(records: list[Record]) -> dict[int, str]:
    """Checksums of the batches that a rank tells, by step."""
    steps = [r for r in records if isinstance(r, Step) and r.observed and r.observed.peer]
    return {r.step: r.observed.peer.batch for r in steps if r.observed and r.observed.peer}


def test_other_ranks_tell_their_batches_and_nothing_else(folder: Path) -> None:
    streams = streams_in(folder / "together")
    first, *steps, last = streams[1][1]
    assert (type(first), type(last)) == (Start, End)
    held = [(r.scalars, r.samples, r.histograms) for r in steps if isinstance(r, Step)]
    assert held == [({}, [], [])] * len(steps)
    here, there = batches(streams[0][1]), batches(streams[1][1])
    assert list(here) == list(there) == [r.step for r in steps if isinstance(r, Step)]
    assert len(there) > 1
    assert not set(here.values()) & set(there.values())


def test_a_step_that_is_looked_at_costs_one_reduction_and_a_quiet_one_none(folder: Path) -> None:
    looked_at = len(norms(streams_in(folder / "counted")[0][1]))
    for rank in (0, 1):
        text = (folder / "counted" / f"counts{rank}.json").read_text()
        with_us, without = json.loads(text)
        added = {kind: with_us[kind] - without.get(kind, 0) for kind in with_us}
        extra = {kind: count for kind, count in added.items() if count}
        assert list(extra.values()) == [2 * looked_at]  # sums and maxima, under way together
        assert "reduce" in next(iter(extra))


def test_ranks_follow_one_plan_without_an_interval(folder: Path) -> None:
    streams = streams_in(folder / "paced")
    found = samples(streams[0][1], "parameter")
    assert {0, 1} <= set(found)
    assert not problems(streams, 0) and not problems(streams, 1)
    assert isinstance(streams[1][1][-1], End)


def test_every_rank_votes_on_what_is_not_finite(folder: Path) -> None:
    streams = streams_in(folder / "broken")
    for rank, direction in ((0, "backward"), (1, "input")):
        found = [r for r in streams[rank][1] if isinstance(r, Event)]
        (event,) = [event for event in found if event.kind == "nonfinite"]
        assert (event.step, event.data["direction"]) == (sharded.FAULT, direction)


def test_a_rank_that_watches_alone_waits_for_no_other(folder: Path) -> None:
    streams = streams_in(folder / "alone")
    assert sorted(streams) == [0]
    (problem,) = problems(streams, 0)
    assert "every rank" in problem.message
    records = streams[0][1]
    assert sorted(samples(records, "activation")) == list(range(sharded.STEPS))
    assert not any(
        sample.group == 1 for r in records if isinstance(r, Step) for sample in r.samples
    )


def test_a_rank_that_stops_watching_lets_the_others_go_on(folder: Path) -> None:
    streams = streams_in(folder / "leaving")
    assert sorted(samples(streams[0][1], "parameter")) == [0, 1, 2, 3]
    assert sorted(samples(streams[0][1], "activation")) == list(range(sharded.STEPS))
    (problem,) = problems(streams, 0)
    assert problem.step == 4


def test_a_rank_that_fails_costs_the_others_one_sample(folder: Path) -> None:
    streams = streams_in(folder / "failing")
    assert sorted(samples(streams[0][1], "parameter")) == [0, 1, 3, 4]
    assert [problem.step for problem in problems(streams, 0)] == [2]
    assert any("for a test" in problem.message for problem in problems(streams, 1))


def test_what_steps_after_the_ranks_have_met_has_no_statistics(folder: Path) -> None:
    records = streams_in(folder / "late")[0][1]
    told = layout(records, "parameter")
    sampled = samples(records, "parameter")
    assert sorted(sampled) == [0, 2, 4, 6, 8]
    for values in sampled.values():
        recorded = (values.view(np.uint32) != MISSING_BITS).any(axis=1)
        names = {row.name for row, known in zip(told.rows, recorded, strict=True) if known}
        assert names == {"0.weight", "0.bias"}
    assert problems(streams_in(folder / "late"), 0) == []
