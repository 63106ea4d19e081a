"""Statistics of many tiny CPU tensors at once: one copy and a few passes instead of several calls for each."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import readout
from trainvitals.hooks.histogram import PATTERNS

TINY = 1 << 10
"""Elements up to which a tensor is tiny: calling numpy for it costs more than the arithmetic."""

_CANCELLATION = 1e-6
"""Below this share of variance in the mean square, std is taken from the centred values instead."""

_Floats: TypeAlias = npt.NDArray[np.float64]


def is_tiny(tensor: Tensor) -> bool:
    """Whether a tensor that `plain` gave is one for `Packed`."""
    return tensor.numel() <= TINY and readout.on_host(tensor)


class Packed:
    """Copies of tensors end to end in float64, in which no square of a float32 overflows or cancels."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """`tensors`: at least one, from `plain`."""
        sizes = [tensor.numel() for tensor in tensors]
        self._sizes = np.array(sizes)
        self._begins = np.array([0, *accumulate(sizes)][:-1])
        joined: Tensor = torch._C._nn.flatten_dense_tensors(list(tensors))
        self._values: _Floats = joined.to(torch.float64, copy=True).numpy()

    def _sums(self, values: _Floats) -> _Floats:
        return np.add.reduceat(values, self._begins)

    def squares(self) -> _Floats:
        """Sum of squares of each tensor; shape `(tensors,)`."""
        with np.errstate(all="ignore"):
            return self._sums(self._values * self._values)

    def moved(self, before: "Packed") -> _Floats:
        """Sum of squared differences from a copy of the same tensors; shape `(tensors,)`."""
        with np.errstate(all="ignore"):
            difference = self._values - before._values
            return self._sums(difference * difference)

    def unchanged(self, before: "Packed") -> _Floats:
        """Share of elements without a single changed bit since; widening to float64 loses none."""
        same = self._values.view(np.int64) == before._values.view(np.int64)
        return self._sums(same.astype(np.float64)) / self._sizes

    def patterns(self) -> npt.NDArray[np.int64]:
        """What `histogram.count_patterns` gives; shape `(tensors, PATTERNS)`."""
        with np.errstate(all="ignore"):
            bits = self._values.astype(np.float32).view(np.uint32) >> np.uint32(23)
        count = len(self._sizes)
        rows = np.repeat(np.arange(count) * PATTERNS, self._sizes)
        return np.bincount(rows + bits, minlength=count * PATTERNS).reshape(count, PATTERNS)

    def scale(self, factor: float) -> None:
        """Multiply all values."""
        self._values *= factor

    def moments(self) -> _Floats:
        """rms, std, absmax and non-finite count of each tensor; shape `(tensors, 4)`."""
        with np.errstate(all="ignore"):
            mean = self._sums(self._values) / self._sizes
            square = self.squares() / self._sizes
            variance = square - mean * mean
            if (variance < _CANCELLATION * square).any():
                centred = self._values - np.repeat(mean, self._sizes)
                variance = self._sums(centred * centred) / self._sizes
            absmax = np.maximum.reduceat(np.abs(self._values), self._begins)
            rms, std = np.sqrt(square), np.sqrt(variance)
        if np.isfinite(absmax).all():
            nonfinite = np.zeros(len(self._sizes))
        else:
            nonfinite = self._sums((~np.isfinite(self._values)).astype(np.float64))
        return np.stack([rms, std, absmax, nonfinite], axis=1)
