"""Runs that record into a temporary folder, and their records read back in a comfortable form."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import trainvitals.hooks as tv
from trainvitals.hooks.spool import find_streams, read_stream
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.columns import MISSING_BITS
from trainvitals.hooks.wire.records import End, Event, Layout, Record, Start, Step
from trainvitals.hooks.wire.scalars import expand


class Recorded:
    """The records of one stream, with a step record for each row of scalars."""

    def __init__(self, records: list[Record]) -> None:
        self.records = [step for record in records for step in expand(record)]

    @property
    def start(self) -> Start:
        first = self.records[0]
        assert isinstance(first, Start)
        return first

    @property
    def end(self) -> End:
        last = self.records[-1]
        assert isinstance(last, End)
        return last

    def layouts(self, kind: str) -> list[Layout]:
        return [r for r in self.records if isinstance(r, Layout) and r.kind == kind]

    def scalar(self, key: str) -> dict[int, float]:
        """Step to value; the last record wins."""
        return {
            r.step: r.scalars[key] for r in self.records if isinstance(r, Step) and key in r.scalars
        }

    def scalar_records(self, key: str) -> list[tuple[int, float]]:
        return [
            (r.step, r.scalars[key])
            for r in self.records
            if isinstance(r, Step) and key in r.scalars
        ]

    def samples(self, kind: str) -> dict[int, dict[str, dict[str, float]]]:
        """Step to row name to column to value; what was not recorded is left out."""
        found: dict[int, dict[str, dict[str, float]]] = {}
        layouts: dict[int, Layout] = {}
        for record in self.records:
            if isinstance(record, Layout):
                layouts[record.group] = record
            if not isinstance(record, Step):
                continue
            for sample in record.samples:
                layout = layouts[sample.group]
                if layout.kind != kind:
                    continue
                matrix = codec.unpack_floats(sample.values, len(layout.rows), len(layout.columns))
                missing = matrix.view(np.uint32) == MISSING_BITS
                rows = found.setdefault(record.step, {})
                for index, row in enumerate(layout.rows):
                    rows.setdefault(row.name, {}).update(
                        {
                            column: float(matrix[index, place])
                            for place, column in enumerate(layout.columns)
                            if not missing[index, place]
                        }
                    )
        return found

    def histograms(self, kind: str) -> dict[int, npt.NDArray[np.uint32]]:
        group = "activation" if kind == "activation" else "parameter"
        found = {}
        rows = 0
        for record in self.records:
            if isinstance(record, Layout) and record.kind == group:
                rows = len(record.rows)
            if isinstance(record, Step):
                for histogram in record.histograms:
                    if histogram.kind == kind:
                        found[record.step] = codec.unpack_counts(histogram.counts, rows)
        return found

    def events(self, kind: str) -> list[Event]:
        return [r for r in self.records if isinstance(r, Event) and r.kind == kind]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No variable of the machine reaches a test, and nothing of a test outlives it."""
    for name in ("URL", "TOKEN", "PROJECT", "RUN_NAME", "RUN_ID", "TAGS", "ATTEMPT"):
        monkeypatch.delenv(f"TRAINVITALS_{name}", raising=False)
    monkeypatch.setenv("TRAINVITALS_MODE", "offline")
    monkeypatch.setenv("TRAINVITALS_DIR", str(tmp_path))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    yield
    tv.finish()


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[[], Recorded]:
    """Finishes the current run and reads the newest stream back."""

    def read() -> Recorded:
        tv.finish()
        folders = find_streams(tmp_path / ".trainvitals")
        newest = max(folders, key=lambda folder: folder.stat().st_mtime_ns)
        return Recorded(list(read_stream(newest)))

    return read


@pytest.fixture
def train() -> Callable[..., list[float]]:
    """Trains a model for a number of steps on fixed random data; returns the losses."""

    def run(
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        steps: int,
        *,
        shape: tuple[int, ...] = (16, 8),
        classes: int = 4,
        after: Callable[[Any], None] | None = None,
    ) -> list[float]:
        generator = torch.Generator().manual_seed(7)
        losses = []
        for _ in range(steps):
            inputs = torch.randn(shape, generator=generator)
            labels = torch.randint(0, classes, (shape[0],), generator=generator)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if after is not None:
                after(loss)
        return losses

    return run
