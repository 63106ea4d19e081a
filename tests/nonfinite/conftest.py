"""Runs a case, reads its stream back and compares the one finding with what the case expects."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nonfinite.bench import Case, run

import trainvitals.hooks as tv
from trainvitals.hooks.spool import find_streams, read_stream
from trainvitals.hooks.wire.records import Event

Events = list[tuple[int, dict[str, Any]]]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No variable of the machine reaches a test, and nothing of a test outlives it."""
    for name in ("URL", "TOKEN", "PROJECT", "RUN_NAME", "RUN_ID", "TAGS", "ATTEMPT"):
        monkeypatch.delenv(f"TRAINVITALS_{name}", raising=False)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRAINVITALS_MODE", "offline")
    monkeypatch.setenv("TRAINVITALS_DIR", str(tmp_path))
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # such small tensors only wait for a second one
    yield
    torch.set_num_threads(threads)
    tv.finish()


@pytest.fixture
def found(tmp_path: Path) -> Callable[[], Events]:
    """Finishes the run: (step, data) of its findings. The hooks must have met no problem of their own."""

    def read() -> Events:
        tv.finish()
        (folder,) = find_streams(tmp_path / ".trainvitals")
        events = [record for record in read_stream(folder) if isinstance(record, Event)]
        problems = [event.message for event in events if event.kind == "monitor"]
        assert [text for text in problems if "compiled" not in text] == []
        return [(event.step, event.data) for event in events if event.kind == "nonfinite"]

    return read


@pytest.fixture
def check(found: Callable[[], Events]) -> Callable[[Case, int], None]:
    """The case's fault is what it claims to be, and is found once, at its step and place."""

    def judge(case: Case, step: int) -> None:
        truth = run(case.build(), step)
        assert truth.fits(case.found.direction), f"the case itself is wrong: {truth}"
        events = found()
        assert [(at, data["direction"]) for at, data in events] == [(step, case.found.direction)]
        compare(case, events[0][1])

    return judge


def compare(case: Case, data: dict[str, Any]) -> None:
    expected = case.found
    layer, parameter = data.get("layer", ""), data.get("parameter", "")
    if expected.layer is not None:
        assert layer == expected.layer
    if expected.parameter is not None:
        assert parameter == expected.parameter
    elif expected.direction in ("backward", "update"):
        assert parameter.rpartition(".")[0] == layer and parameter
    if expected.nan is not None:
        assert data.get("nan", 0) == expected.nan
    if expected.spread is not None:
        assert tuple(data.get("spread", ())) == expected.spread
        assert data.get("spread_count", 0) == len(expected.spread)
    if expected.inputs is not None:
        assert expected.inputs(data.get("inputs", [])), data.get("inputs")
