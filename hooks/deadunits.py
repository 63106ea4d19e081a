"""Which units of ReLU-like layers were never active lately."""

import torch
from torch import Tensor, nn

from trainvitals.hooks.readout import Number, number

MIN_POSITIONS = 1_024
"""Samples·positions that a generation spans at least."""
MIN_BATCHES = 20
"""Batches that a generation spans at least: a unit that dies is seen dead within one to two times as many."""


def has_flat_zero_side(module: nn.Module) -> bool:
    """Whether the module maps a half-line to zero, so that a unit there gets no gradient."""
    match module:
        case nn.ReLU() | nn.ReLU6() | nn.Hardsigmoid() | nn.Hardswish():
            return True
        case nn.Hardtanh():
            return module.min_val == 0
        case nn.Threshold():
            return module.value == 0
    return False


class DeadUnits:
    """Rolling bitmap of one layer: was a unit active within the last one to two generations?

    Units are the last dimension, or dimension 1 of an output in `(N, C, ...)` form.
    """

    def __init__(self, module: nn.Module) -> None:
        # Hardswish dips below zero before it is flat; the others are never negative.
        self._signed = isinstance(module, nn.Hardswish)
        self._current: Tensor | None = None
        self._previous: Tensor | None = None
        self._positions = self._batches = 0
        self._previous_positions = 0

    def see(self, output: Tensor, channels_first: bool) -> None:
        """Count one batch of outputs, at least one-dimensional."""
        unit = 1 if channels_first and output.dim() >= 3 else output.dim() - 1
        units = output.shape[unit]
        if units == 0 or output.numel() == 0:
            return
        others = [dim for dim in range(output.dim()) if dim != unit]
        size = output.detach().abs() if self._signed else output.detach()
        active = (size.amax(dim=others) if others else size) > 0
        if self._current is None or self._current.shape != active.shape:
            self._current, self._previous = active, None
            self._positions = self._batches = self._previous_positions = 0
        else:
            self._current = self._current | active
        self._positions += output.numel() // units
        self._batches += 1

    def read(self) -> tuple[Number, float]:
        """Share of units without any activity, and the samples·positions behind it."""
        if self._current is None:
            return float("nan"), 0.0
        active = self._current if self._previous is None else self._current | self._previous
        dead = number(1.0 - active.to(torch.float32).mean())
        positions = self._positions + self._previous_positions
        if self._positions >= MIN_POSITIONS and self._batches >= MIN_BATCHES:
            self._previous, self._current = self._current, torch.zeros_like(self._current)
            self._previous_positions, self._positions, self._batches = self._positions, 0, 0
        return dead, float(positions)
