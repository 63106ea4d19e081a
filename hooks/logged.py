"""Histograms that the user's own code logs, by name."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainvitals.hooks import histogram
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.recorder import Recorder
from trainvitals.hooks.wire import codec, limits
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.records import Histograms, Row

GROUP = 2
"""Number of the group whose rows are the names; a stream's groups 0 and 1 are activations and parameters."""
COLUMN = "values"
"""The group's only column. It never has samples: nothing but histograms is logged by these names."""


class LoggedHistograms:
    """Gathers the histograms of one step, so that a step sends one record and names are laid out once."""

    def __init__(self, recorder: Recorder, problems: Problems) -> None:
        self._recorder = recorder
        self._problems = problems
        self._rows: dict[str, int] = {}
        self._laid_out = 0
        self._step = 0
        self._pending: dict[int, npt.NDArray[np.int64]] = {}
        """Row to counts, shape `(BINS,)`."""

    def add(self, name: str, values: Any, step: int) -> None:
        """Count the elements of a tensor, an array or a list; large ones are sub-sampled."""
        tensor = torch.as_tensor(values).detach().reshape(-1)
        if tensor.is_complex():
            raise TypeError("a histogram is of real values; got complex ones")
        if name not in self._rows and len(self._rows) >= limits.MAX_ROWS:
            self._problems.note(
                f"only {limits.MAX_ROWS:,} histograms have room; others are left out."
            )
            return
        if step != self._step:
            self.flush()
            self._step = step
        row = self._rows.setdefault(name, len(self._rows))
        self._pending[row] = histogram.here(histogram.count(tensor.to(torch.float32)))

    def flush(self) -> None:
        """Send what was gathered."""
        if not self._pending:
            return
        if self._laid_out < len(self._rows):
            self._laid_out = len(self._rows)
            rows = [Row(name=name, layer=name) for name in self._rows]
            self._recorder.layout(
                step=self._step, group=GROUP, kind="logged", rows=rows, columns=[COLUMN]
            )
        counts = np.zeros((len(self._rows), BINS), np.int64)
        for row, counted in self._pending.items():
            counts[row] = counted
        self._pending = {}
        packed = Histograms(group=GROUP, kind="logged", counts=codec.pack_counts(counts))
        self._recorder.step(step=self._step, histograms=[packed])
