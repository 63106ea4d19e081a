"""Which units of ReLU-like layers were never active lately."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainvitals.hooks import readout
from trainvitals.hooks.plain import array
from trainvitals.hooks.readout import Number
from trainvitals.hooks.units import unit_axis

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
        # bool, shape (units,): a numpy array, or a tensor where the output is on a device
        self._current: Any = None
        self._previous: Any = None
        self._positions = self._batches = 0
        self._previous_positions = 0

    def see(self, output: Tensor | npt.NDArray[Any], channels_first: bool) -> None:
        """Count one batch of outputs, at least one-dimensional and not empty."""
        axis = unit_axis(output, channels_first)
        units, elements = output.shape[axis], math.prod(output.shape)
        active = _active(abs(output) if self._signed else output, axis)
        if type(self._current) is not type(active) or self._current.shape != active.shape:
            self._current, self._previous = active, None
            self._positions = self._batches = self._previous_positions = 0
        else:
            self._current = self._current | active
        self._positions += elements // units
        self._batches += 1

    def read(self) -> tuple[Number, float]:
        """Share of units without any activity, and the samples·positions behind it."""
        if self._current is None:
            return float("nan"), 0.0
        active = self._current if self._previous is None else self._current | self._previous
        dead: Number
        if isinstance(active, Tensor):
            dead = 1.0 - active.to(torch.float32).mean()
        else:
            dead = 1.0 - np.count_nonzero(active) / len(active)
        positions = self._positions + self._previous_positions
        if self._positions >= MIN_POSITIONS and self._batches >= MIN_BATCHES:
            self._previous, self._current = self._current, self._current ^ self._current
            self._previous_positions, self._positions, self._batches = self._positions, 0, 0
        return dead, float(positions)


def _active(output: Any, axis: int) -> Any:
    """Whether each unit is above zero anywhere, whatever is NaN elsewhere; a numpy array for an output on the CPU."""
    if isinstance(output, np.ndarray):
        return _active_here(output, axis)
    output = output.detach()
    units = output.movedim(axis, -1)
    if not readout.on_host(output):
        most = units.reshape(-1, units.shape[-1]).amax(0)
        return ~(most <= 0)  # NaN hides what else there is: that unit is not called dead
    if units.is_contiguous():
        return _active_here(array(units.view(-1)).reshape(-1, units.shape[-1]), 1)
    if axis == 1:
        return _active_here(array(output), 1)
    return (units > 0).reshape(-1, units.shape[-1]).any(0).numpy()


def _active_here(output: npt.NDArray[Any], axis: int) -> npt.NDArray[np.bool_]:
    most = output.reshape(-1, output.shape[-1]) if axis == output.ndim - 1 else output
    # samples first: that runs along the memory, and leaves little for the slow way across it
    most = np.fmax.reduce(most, 0)
    if most.ndim > 1:
        most = np.fmax.reduce(most.reshape(len(most), -1), 1)
    active: npt.NDArray[np.bool_] = most > 0
    return active
