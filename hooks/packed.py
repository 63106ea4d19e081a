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
from trainvitals.hooks.stats import CANCELLATION, Moments

SMALL = 1 << 14
"""Elements up to which a tensor is small: calling numpy or torch for it costs more than the arithmetic."""
_AT_ONCE = 1 << 16
"""Elements that are passed over together: they stay in the cache, and temporaries stay small."""

Floats: TypeAlias = npt.NDArray[np.float32]
_Doubles: TypeAlias = npt.NDArray[np.float64]


def is_small(tensor: Tensor) -> bool:
    """Whether a tensor that `plain` gave is one for `Packed`."""
    return tensor.numel() <= SMALL and tensor.dtype is not torch.float64 and readout.on_host(tensor)


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
        with np.errstate(all="ignore"):
            found = [self._moments(*chunk, zeros) for chunk in self._chunks]
        return np.concatenate([np.empty((0, len(Moments._fields))), *found])

    def _moments(self, first: int, last: int, zeros: bool) -> _Doubles:
        place, begins = self._chunk(first, last)
        values, sizes = self._values[place], np.array(self.sizes[first:last])
        low = np.minimum.reduceat(values, begins)
        absmax = np.maximum(np.maximum.reduceat(values, begins), -low)
        mean = np.add.reduceat(values, begins) / sizes
        square = np.add.reduceat(values * values, begins) / sizes
        variance = square - mean * mean
        fine = (absmax < 1e15) & (absmax > 1e-15) & (variance >= CANCELLATION * square)
        odd = np.flatnonzero(~(fine | (absmax == 0)))
        if len(odd):
            joined = np.concatenate([self.part(first + index) for index in odd.tolist()])
            own = sizes[odd]
            wide = _wide(joined, np.cumsum(own) - own, own)
            mean[odd], square[odd], variance[odd] = wide
        found = np.empty((last - first, len(Moments._fields)))
        found[:, 0], found[:, 1], found[:, 2] = mean, np.sqrt(variance), np.sqrt(square)
        found[:, 3], found[:, 4], found[:, 5] = absmax, np.nan, 0.0
        if zeros:
            found[:, 4] = np.add.reduceat(values == 0, begins, dtype=np.float32) / sizes
        if not np.isfinite(absmax).all():
            found[:, 5] = np.add.reduceat(~np.isfinite(values), begins, dtype=np.float64)
        return found

    def changes(self, before: "Packed") -> tuple[list[float], list[float]]:
        """Sum of squared differences from a copy of the same tensors, and the share of elements without any."""
        found: list[float] = []
        same: list[float] = []
        with np.errstate(all="ignore"):
            for first, last in self._chunks:
                place, begins = self._chunk(first, last)
                change = self._values[place] - before._values[place]
                counts = np.add.reduceat(change == 0, begins, dtype=np.float32)
                same.extend((counts / self.sizes[first:last]).tolist())
                sums = np.add.reduceat(change * change, begins)
                if not ((sums > 1e-28) & (sums < 1e30)).all() and change.any():
                    wide = change.astype(np.float64)
                    sums = np.add.reduceat(wide * wide, begins)
                found.extend(sums.tolist())
        return found, same

    def patterns(self) -> list[npt.NDArray[np.int64]]:
        """What `histogram.count_patterns` gives for each."""
        return [histogram.count_values(self.part(index)) for index in range(len(self.sizes))]


def _wide(
    values: Floats, begins: npt.NDArray[np.intp], sizes: npt.NDArray[np.int64]
) -> tuple[_Doubles, _Doubles, _Doubles]:
    """Mean, mean square and variance in float64, in which no square overflows or cancels."""
    wide = values.astype(np.float64)
    mean = np.add.reduceat(wide, begins) / sizes
    square = np.add.reduceat(wide * wide, begins) / sizes
    wide -= np.repeat(mean, sizes)
    return mean, square, np.add.reduceat(wide * wide, begins) / sizes
