"""Statistics of many small CPU tensors at once: one copy and a few passes instead of several calls for each.

Between two layers of a model every line of Python and numpy runs from a cold cache, several times as slow as in a
loop. So small tensors are copied only, and all of them measured together.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import histogram, readout
from trainvitals.hooks.memory import Floats
from trainvitals.hooks.plain import Array
from trainvitals.hooks.stats import CANCELLATION, Moments, sum_of_squares, sums

SMALL = 1 << 15
"""Elements up to which a tensor is small: calling numpy or torch for it costs more than the arithmetic."""

_Doubles: TypeAlias = npt.NDArray[np.float64]


def is_small(tensor: Tensor) -> bool:
    """Whether a tensor that `plain` gave is one for `Packed`."""
    return tensor.numel() <= SMALL and tensor.dtype is not torch.float64 and readout.on_host(tensor)


def is_single(values: Array) -> bool:
    """Whether values are float32, whose sums `Packed` knows how to take."""
    return values.dtype == np.float32


class Packed:
    """Small tensors end to end in float32; those that float32 cannot sum up are looked at in float64."""

    def __init__(self, values: Floats, sizes: Sequence[int]) -> None:
        """`values`: all elements; `sizes`: how many each tensor has, none of them 0."""
        self._sizes = sizes
        ends = list(accumulate(sizes))
        self.parts = [values[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        """The elements of each tensor."""

    def moments(self, zeros: bool = False) -> _Doubles:
        """What `stats.moments` gives for each; shape `(tensors, 6)`."""
        found = np.zeros((len(self.parts), len(Moments._fields)))
        if not self.parts:
            return found
        with np.errstate(all="ignore"):
            low, high, total, squares = np.array([_bounds_and_sums(p) for p in self.parts]).T
            absmax = np.maximum(high, -low)
            sizes = np.array(self._sizes)
            mean, square = total / sizes, squares / sizes
            variance = square - mean * mean
            fine = (absmax < 1e15) & (absmax > 1e-15) & (variance >= CANCELLATION * square)
            for index in np.flatnonzero(~(fine | (absmax == 0))).tolist():
                mean[index], square[index], variance[index] = _wide(self.parts[index])
            found[:, 0], found[:, 1], found[:, 2] = mean, np.sqrt(variance), np.sqrt(square)
        found[:, 3], found[:, 4] = absmax, np.nan
        if zeros:
            found[:, 4] = [
                np.count_nonzero(part == 0) / len(part) if below <= 0 <= above else 0.0
                for part, below, above in zip(self.parts, low, high, strict=True)
            ]
        for index in np.flatnonzero(~np.isfinite(absmax)).tolist():
            found[index, 4] = np.count_nonzero(self.parts[index] == 0) / len(self.parts[index])
            found[index, 5] = np.count_nonzero(~np.isfinite(self.parts[index]))
        return found

    def changes(self, before: "Packed") -> tuple[list[float], list[float]]:
        """Sum of squared differences from a copy of the same tensors, and the share of elements without any."""
        found: list[float] = []
        same: list[float] = []
        with np.errstate(all="ignore"):
            for part, old in zip(self.parts, before.parts, strict=True):
                change = part - old
                found.append(sum_of_squares(change))
                same.append(np.count_nonzero(change == 0) / len(change))
        return found, same

    def patterns(self) -> list[npt.NDArray[np.int64]]:
        """What `histogram.count_patterns` gives for each."""
        return [histogram.count_values(part) for part in self.parts]


def _bounds_and_sums(values: Floats) -> tuple[float, float, float, float]:
    """Smallest and largest value, sum and sum of squares."""
    total, squares = sums(values)
    return float(np.minimum.reduce(values)), float(np.maximum.reduce(values)), total, squares


def _wide(values: Floats) -> tuple[float, float, float]:
    """Mean, mean square and variance in float64, in which no square overflows or cancels."""
    wide = values.astype(np.float64)
    mean = float(np.add.reduce(wide)) / len(wide)
    square = float(wide.dot(wide)) / len(wide)
    wide -= mean
    return mean, square, float(wide.dot(wide)) / len(wide)
