"""The thresholds that are in common use, run over the same records, for comparison.

Each alarms when its condition holds in three samples of a row one after the other (a spike: at once), from the 20th
step on: what an implementation with some care does.
"""

import math
from typing import Final

import numpy as np

from trainvitals.app.rules.context import Context, Group, Table
from trainvitals.hooks.wire.records import Layout, Record, Step

THRESHOLDS: Final = {
    "update ratio 1e-3 ± a decade": (
        "update-ratio-high",
        "update-ratio-low",
        "lr-too-high",
        "lr-too-low",
    ),
    "std outside 0.5–2.0": (
        "activation-scale-depth",
        "saturated-activation",
        "activation-drift",
        "input-insensitive",
    ),
    "gradient below 1e-7": ("gradient-vanishing-depth", "adam-eps-dominates"),
    "zero share over 70 %": ("dead-relu-units",),
    "3σ spike of the loss": ("gradient-exploding", "loss-spike", "loss-divergence"),
    "validation rose for an epoch": ("overfitting",),
}
"""Each threshold and the rules whose faults it is meant for."""
START: Final = 20
IN_A_ROW: Final = 3


class Classic:
    """All thresholds at work on one run's records of rank 0."""

    def __init__(self) -> None:
        self.alarms: dict[str, int] = {}
        """The step of each threshold's first alarm."""
        self._context = Context()
        self._groups: dict[int, Group] = {}
        self._rows: dict[tuple[str, str], int] = {}
        self._losses: list[float] = []
        self._validation = math.nan
        self._mean = math.nan
        """Training loss at the last validation."""

    def feed(self, record: Record) -> None:
        """Take the next record, `Scalars` already expanded."""
        if isinstance(record, Layout):
            self._groups[record.group] = Group(record)
        elif isinstance(record, Step):
            loss = self._context.step(record)
            for sample in record.samples:
                if sample.group in self._groups:
                    self._sample(record.step, Table(self._groups[sample.group], sample.values))
            self._scalars(record, loss)

    def _alarm(self, name: str, step: int) -> None:
        if step >= START:
            self.alarms.setdefault(name, step)

    def _rows_over(self, name: str, step: int, table: Table, over: np.ndarray) -> None:
        for row, wrong in zip(table.group.rows, over, strict=True):
            key = name, row.name
            self._rows[key] = self._rows.get(key, 0) + 1 if wrong else 0
            if self._rows[key] >= IN_A_ROW:
                self._alarm(name, step)

    def _sample(self, step: int, table: Table) -> None:
        names = list(THRESHOLDS)
        with np.errstate(invalid="ignore"):
            if table.group.layout.kind == "parameter":
                ratio = table.column("update_ratio")
                self._rows_over(names[0], step, table, (ratio < 1e-4) | (ratio > 1e-2))
                self._rows_over(names[2], step, table, table.column("grad_rms") < 1e-7)
            elif table.group.layout.kind == "activation":
                std = table.column("std")
                self._rows_over(names[1], step, table, (std < 0.5) | (std > 2.0))
                self._rows_over(names[3], step, table, table.column("zero_fraction") > 0.7)

    def _scalars(self, record: Step, loss: float | None) -> None:
        if loss is not None and math.isfinite(loss):
            recent = self._losses[-1000:]
            if len(recent) >= START and loss > np.mean(recent) + 3 * np.std(recent):
                self._alarm("3σ spike of the loss", record.step)
            self._losses.append(loss)
        value = record.scalars.get("val/loss")
        if value is not None:
            if value > self._validation and self._context.loss.slow < self._mean:
                self._alarm("validation rose for an epoch", record.step)
            self._validation, self._mean = value, self._context.loss.slow
