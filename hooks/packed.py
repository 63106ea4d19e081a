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
from trainvitals.hooks.stats import CANCELLATION, moments_of, sum_of_squares

SMALL = 1 << 14
"""Elements up to which a tensor is small: calling numpy or torch for it costs more than the arithmetic."""
_AT_ONCE = 1 << 17
"""Elements that are passed over together: they stay in the cache, and temporaries stay small."""

Floats: TypeAlias = npt.NDArray[np.float32]
_Doubles: TypeAlias = npt.NDArray[np.float64]


def is_small(tensor: Tensor) -> bool:
    """Whether a tensor that `plain` gave is one for `Packed`."""
    return (
        tensor.numel() <= SMALL
        and tensor.dtype is not torch.float64
        and readout.on_host(tensor)
    )


def join(tensors: Sequence[Tensor]) -> Floats:
    """A copy of small tensors end to end."""
    joined: Tensor = torch._C._nn.flatten_dense_tensors(list(tensors))
    values: Floats = joined.to(torch.float32, copy=len(tensors) == 1).numpy()
    return values


class Packed:
    """Small tensors end to end in float32; those that float32 cannot sum up are looked at one by one."""

    def __init__(self, values: Floats, sizes: Sequence[int]) -> None:
        """`values`: all elements; `sizes`: how many each tensor has, none of them 0."""
        self._values = values
        self.sizes = sizes
        self._begins = [0, *accumulate(sizes)]
        self._chunks: list[tuple[int, int]] = []
        """First and behind the last tensor of what is passed over together."""
        first = 0
        for index in range(1, len(sizes) + 1):
            end = index == len(sizes)
            if end or self._begins[index + 1] - self._begins[first] > _AT_ONCE:
                self._chunks.append((first, index))
                first = index

    def part(self, index: int) -> Floats:
        """The elements of one tensor."""
        return self._values[self._begins[index] : self._begins[index + 1]]

    def _chunk(self, first: int, last: int) -> tuple[slice, npt.NDArray[np.intp]]:
        """Where the elements of some tensors lie, and where each begins among them."""
        begins = np.array(self._begins[first : last + 1])
        return slice(begins[0], begins[-1]), begins[:-1] - begins[0]

    def moments(self, zeros: bool = False) -> _Doubles:
        """What `stats.moments` gives for each; shape `(tensors, 6)`."""
        found = np.empty((6, len(self.sizes)))
        total, square, low, high, zero, bad = found
        bad[:] = 0.0
        zero[:] = np.nan
        with np.errstate(all="ignore"):
            for first, last in self._chunks:
                place, begins = self._chunk(first, last)
                values = self._values[place]
                total[first:last] = np.add.reduceat(values, begins)
                square[first:last] = np.add.reduceat(values * values, begins)
                low[first:last] = np.minimum.reduceat(values, begins)
                high[first:last] = np.maximum.reduceat(values, begins)
                if zeros:
                    zero[first:last] = np.add.reduceat((values == 0).astype(np.float32), begins)
            sizes = np.array(self.sizes)
            mean, square, zero = total / sizes, square / sizes, zero / sizes
            absmax, variance = np.maximum(-low, high), square - mean * mean
            rows = np.stack([mean, np.sqrt(variance), np.sqrt(square), absmax, zero, bad], axis=1)
            plain = (absmax < 1e15) & (absmax > 1e-15) & (variance >= CANCELLATION * square)
        for index in np.flatnonzero(~(plain | (absmax == 0))):
            rows[index] = moments_of(self.part(index), zeros)
        return rows

    def squares(self) -> list[float]:
        """Sum of squares of each tensor."""
        return self._squares(None)

    def moved(self, before: "Packed") -> list[float]:
        """Sum of squared differences from a copy of the same tensors."""
        return self._squares(before)

    def _squares(self, before: "Packed | None") -> list[float]:
        found: list[float] = []
        with np.errstate(all="ignore"):
            for first, last in self._chunks:
                place, begins = self._chunk(first, last)
                values = self._values[place]
                if before is not None:
                    values = values - before._values[place]
                sums = np.add.reduceat(values * values, begins)
                exact = sums.astype(np.float64)
                for index in np.flatnonzero(~((sums > 1e-25) & (sums < 1e30))):
                    begin = begins[index]
                    part = values[begin : begin + self.sizes[first + index]]
                    exact[index] = sum_of_squares(part) if part.any() else 0.0
                found.extend(exact.tolist())
        return found

    def unchanged(self, before: "Packed") -> list[float]:
        """Share of elements without a single changed bit since."""
        found: list[float] = []
        for first, last in self._chunks:
            place, begins = self._chunk(first, last)
            same = self._values[place].view(np.int32) == before._values[place].view(np.int32)
            shares = np.add.reduceat(same.astype(np.float32), begins) / self.sizes[first:last]
            found.extend(shares.tolist())
        return found

    def patterns(self) -> list[npt.NDArray[np.int64]]:
        """What `histogram.count_patterns` gives for each."""
        return [histogram.count_values(self.part(index)) for index in range(len(self.sizes))]

    def scale(self, factor: float) -> None:
        """Multiply all values."""
        with np.errstate(all="ignore"):
            self._values *= np.float32(factor)
