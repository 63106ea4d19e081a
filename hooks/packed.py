"""Moments of many small CPU tensors at once: one copy and a few passes instead of several calls for each."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks.histogram import PATTERNS
from trainvitals.hooks.stats import Moments

SMALL = 1 << 13
"""Elements up to which a tensor is small: calling torch for it then costs more than the arithmetic."""

_CANCELLATION = 1e-6
"""Below this share of variance in the mean square, std is taken from the centred values instead."""

_Floats: TypeAlias = npt.NDArray[np.float64]


def is_small(tensor: Tensor) -> bool:
    """Whether a floating tensor is one for `Packed`."""
    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and 0 < tensor.numel() <= SMALL
    )


class Packed:
    """Copies of tensors end to end in float64, in which no square of a float32 overflows or cancels."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """`tensors`: dense floating CPU tensors with elements, at least one."""
        parts = [tensor.detach().reshape(-1) for tensor in tensors]
        self._sizes = np.array([len(part) for part in parts])
        self._begins = [0, *accumulate(len(part) for part in parts)]
        self._values: _Floats = torch.cat(parts).to(torch.float64).numpy()

    def _sums(self, values: _Floats) -> _Floats:
        return np.add.reduceat(values, self._begins[:-1])

    def squares(self) -> _Floats:
        """Sum of squares of each tensor; shape `(tensors,)`."""
        with np.errstate(all="ignore"):
            return self._sums(self._values * self._values)

    def moved(self, before: "Packed") -> _Floats:
        """Sum of squared differences from a copy of the same tensors; shape `(tensors,)`."""
        with np.errstate(all="ignore"):
            difference = self._values - before._values
            return self._sums(difference * difference)

    def same_bits(self, before: "Packed", index: int) -> bool:
        """Whether a tensor has not a single bit changed since; widening to float64 loses none."""
        place = slice(self._begins[index], self._begins[index + 1])
        now: Any = self._values[place].view(np.int64)
        return bool(np.array_equal(now, before._values[place].view(np.int64)))

    def finite(self, index: int) -> bool:
        """Whether all elements of a tensor are."""
        place = slice(self._begins[index], self._begins[index + 1])
        return bool(np.isfinite(self._values[place]).all())

    def patterns(self) -> list[Tensor]:
        """What `histogram.count_patterns` gives for each tensor."""
        with np.errstate(all="ignore"):
            bits = self._values.astype(np.float32).view(np.int32) >> 23
        rows = np.repeat(np.arange(len(self._sizes)) * PATTERNS, self._sizes)
        counts = np.bincount(rows + (bits & (PATTERNS - 1)), minlength=len(self._sizes) * PATTERNS)
        return list(torch.from_numpy(counts.reshape(-1, PATTERNS)))

    def zero_fractions(self) -> list[float]:
        """Share of exact zeros of each tensor."""
        zeros = self._sums((self._values == 0).astype(np.float64)) / self._sizes
        shares: list[float] = zeros.tolist()
        return shares

    def moments(self) -> list[Moments]:
        """Moments of each tensor."""
        with np.errstate(all="ignore"):
            mean = self._sums(self._values) / self._sizes
            square = self.squares() / self._sizes
            variance = square - mean * mean
            if (variance < _CANCELLATION * square).any():
                centred = self._values - np.repeat(mean, self._sizes)
                variance = self._sums(centred * centred) / self._sizes
            std, rms = np.sqrt(variance), np.sqrt(square)
            absmax = np.maximum.reduceat(np.abs(self._values), self._begins[:-1])
        if np.isfinite(absmax).all():
            nonfinite = np.zeros(len(self._sizes))
        else:
            nonfinite = self._sums((~np.isfinite(self._values)).astype(np.float64))
        columns = (mean, std, rms, absmax, nonfinite)
        return [Moments(*row) for row in np.stack(columns, axis=1).tolist()]
