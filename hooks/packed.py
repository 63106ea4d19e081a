"""Statistics of many small CPU tensors at once: one copy and a few passes instead of several calls for each.

Between two layers of a model every line of Python and numpy runs from a cold cache, several times as slow as in a
loop. So small tensors are copied only, and all of them measured together.
"""

from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import histogram, readout
from trainvitals.hooks.memory import Floats
from trainvitals.hooks.plain import Array
from trainvitals.hooks.stats import BLAS_AT_ONCE, CANCELLATION, Moments

SMALL = 1 << 15
"""Elements up to which a tensor is small: calling numpy or torch for it costs more than the arithmetic."""

_Doubles: TypeAlias = npt.NDArray[np.float64]


def is_small(tensor: Tensor) -> bool:
    """Whether a tensor that `plain` gave is one for `Packed`."""
    return tensor.numel() <= SMALL and tensor.dtype is not torch.float64 and readout.on_host(tensor)


def is_single(values: Array) -> bool:
    """Whether values are float32, whose sums `Packed` knows how to take."""
    return values.dtype == np.float32


class Layout(NamedTuple):
    """Where tensors lie that are end to end, and what follows from it."""

    counts: _Doubles
    """Elements of each."""
    begins: npt.NDArray[np.intp]
    slices: tuple[slice, ...]
    pieces: tuple[slice, ...]
    """All elements in parts that one BLAS call gets."""
    first_pieces: npt.NDArray[np.intp]
    """The piece with which each tensor begins."""
    picked: tuple[slice, ...]
    """Elements of each of which the signs and exponents are counted."""
    offsets: npt.NDArray[np.intp]
    """For each of these: where the counts of its tensor begin."""


@lru_cache(maxsize=8)
def layout(sizes: tuple[int, ...]) -> Layout:
    """Of tensors of these sizes, none of them 0: the same ones come at every sample."""
    ends = list(accumulate(sizes))
    slices = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    pieces = [
        [slice(at, min(at + BLAS_AT_ONCE, s.stop)) for at in range(s.start, s.stop, BLAS_AT_ONCE)]
        for s in slices
    ]
    picked = [slice(s.start, s.stop, histogram.distance(s.stop - s.start)) for s in slices]
    lengths = [len(range(s.start, s.stop, s.step)) for s in picked]
    return Layout(
        np.array(sizes, np.float64),
        np.array([s.start for s in slices], np.intp),
        tuple(slices),
        tuple(piece for part in pieces for piece in part),
        np.array([0, *accumulate(map(len, pieces))][:-1], np.intp),
        tuple(picked),
        np.repeat(np.arange(len(sizes), dtype=np.intp) * histogram.PLACES, lengths),
    )


class Packed:
    """Small tensors end to end in float32; those that float32 cannot sum up are looked at in float64."""

    def __init__(self, values: Floats, sizes: tuple[int, ...]) -> None:
        """`values`: all elements; `sizes`: how many each tensor has, at least one tensor and none of them 0."""
        self._values = values
        self._layout = layout(sizes)

    @property
    def parts(self) -> list[Floats]:
        """The elements of each tensor."""
        return [self._values[part] for part in self._layout.slices]

    @np.errstate(all="ignore")
    def moments(self, zeros: bool = False) -> _Doubles:
        """What `stats.moments` gives for each; shape `(tensors, 6)`."""
        values, (counts, begins, *_) = self._values, self._layout
        low, high = np.minimum.reduceat(values, begins), np.maximum.reduceat(values, begins)
        absmax = np.maximum(high, -low).astype(np.float64)
        mean = np.add.reduceat(values, begins) / counts
        square = _squares(values, self._layout) / counts
        variance = square - mean * mean
        found = np.zeros((len(begins), len(Moments._fields)))
        fine = (absmax < 1e15) & (absmax > 1e-15) & (variance >= CANCELLATION * square)
        for index in np.flatnonzero(~(fine | (absmax == 0))).tolist():
            part = values[self._layout.slices[index]]
            mean[index], square[index], variance[index] = _wide(part)
            if not absmax[index] < np.inf:  # NaN too
                found[index, 5] = np.count_nonzero(~np.isfinite(part))
        found[:, 0], found[:, 1], found[:, 2] = mean, np.sqrt(variance), np.sqrt(square)
        found[:, 3], found[:, 4] = absmax, np.nan
        if zeros:
            found[:, 4] = self._shares(values == 0)
        return found

    @np.errstate(all="ignore")
    def as_changes(self) -> tuple[list[float], list[float]]:
        """Of differences: the sum of their squares for each tensor, and the share of elements without any."""
        change, places = self._values, self._layout
        found = _squares(change, places)
        for index in np.flatnonzero((found < 1e-28) | (found > 1e30)).tolist():
            wide = change[places.slices[index]].astype(np.float64)
            found[index] = wide.dot(wide)
        return found.tolist(), self._shares(change == 0).tolist()

    def _shares(self, is_so: npt.NDArray[np.bool_]) -> _Doubles:
        """Of the elements of each tensor, which share is so."""
        found = [np.count_nonzero(is_so[part]) for part in self._layout.slices]
        return np.array(found, np.float64) / self._layout.counts

    def histograms(self) -> npt.NDArray[np.int64]:
        """What `histogram.count` gives for each; shape `(tensors, BINS)`."""
        picked = np.concatenate([self._values[part] for part in self._layout.picked])
        return histogram.count_together(picked, self._layout.offsets, len(self._layout.begins))


def _squares(values: Floats, places: Layout) -> _Doubles:
    """Sum of squares of each tensor."""
    parts = [values[piece] for piece in places.pieces]
    found: _Doubles = np.array([part.dot(part) for part in parts], np.float64)
    return np.add.reduceat(found, places.first_pieces)


def _wide(values: Floats) -> tuple[float, float, float]:
    """Mean, mean square and variance in float64, in which no square overflows or cancels."""
    wide = values.astype(np.float64)
    mean = float(np.add.reduce(wide)) / len(wide)
    square = float(wide.dot(wide)) / len(wide)
    wide -= mean
    return mean, square, float(wide.dot(wide)) / len(wide)
