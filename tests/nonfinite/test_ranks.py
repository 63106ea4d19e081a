"""A fault on one rank of two: that rank's stream tells of it, though all-reduce hands it to both."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nonfinite.bench import Truth

from trainvitals.hooks.spool import find_streams, read_meta, read_stream
from trainvitals.hooks.wire.records import Event

pytestmark = pytest.mark.slow

Told = Callable[[str, int], list[tuple[int, dict[str, Any]]]]
STEP = 7
PLACES = {"input": None, "forward": "middle", "backward": "lower", "loss": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both ranks have recorded every scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).parent / "two_ranks.py"
    paths = [str(script.parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TRAINVITALS_MODE": "offline",
        "TRAINVITALS_DIR": str(folder),
    }
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), folder], env=environment)
        for rank in (0, 1)
    ]
    try:
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> Told:
    """The findings of one scenario in one rank's stream."""

    def read(scenario: str, rank: int) -> list[tuple[int, dict[str, Any]]]:
        streams = find_streams(folder / ".trainvitals" / scenario)
        (stream,) = [stream for stream in streams if read_meta(stream).rank == rank]
        events = [record for record in read_stream(stream) if isinstance(record, Event)]
        return [(event.step, event.data) for event in events if event.kind == "nonfinite"]

    return read


@pytest.mark.parametrize("direction", PLACES)
def test_the_rank_with_the_fault_names_its_place(folder: Path, told: Told, direction: str) -> None:
    truth = Truth(*json.loads((folder / "truths1.json").read_text())[direction])
    assert truth.fits(direction)
    ((step, data),) = told(direction, 1)
    assert (step, data["direction"]) == (STEP, direction)
    if PLACES[direction] is not None:
        assert data.get("layer", "") == PLACES[direction]


@pytest.mark.parametrize("direction", PLACES)
def test_the_other_rank_claims_no_fault_of_its_own(
    folder: Path, told: Told, direction: str
) -> None:
    """Its forward pass and loss were fine: all it may say is that bad gradients have come."""
    truth = Truth(*json.loads((folder / "truths0.json").read_text())[direction])
    assert truth.loss and not truth.gradients
    assert [
        at for at in told(direction, 0) if at[0] != STEP or at[1]["direction"] != "backward"
    ] == []
