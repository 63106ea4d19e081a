"""Statistics of many small CPU tensors at once: one copy and a few passes instead of several calls for each.

Between two layers of a model every line of Python and numpy runs from a cold cache, several times as slow as in a
loop. So small tensors are copied only, and all of them measured together.
"""

from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import histogram, readout
from trainvitals.hooks.memory import Floats
from trainvitals.hooks.plain import Array
from trainvitals.hooks.stats import BLAS_AT_ONCE, Moments, finish, sum_of_squares

SMALL = 1 << 15
"""Elements up to which a tensor is small: calling numpy or torch for it costs more than the arithmetic."""


def is_small(tensor: Tensor) -> bool:
    """Whether a tensor that `plain` gave is one for `Packed`."""
    return tensor.numel() <= SMALL and tensor.dtype is not torch.float64 and readout.on_host(tensor)


def is_single(values: Array) -> bool:
    """Whether values are float32, whose sums `Packed` knows how to take."""
    return values.dtype == np.float32


class Layout(NamedTuple):
    """Where tensors lie that are end to end, and what follows from it."""

    begins: npt.NDArray[np.intp]
    slices: tuple[slice, ...]
    pieces: tuple[tuple[slice, ...], ...]
    """All elements of each in parts that one BLAS call gets."""
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
        tuple(
            slice(at, min(at + BLAS_AT_ONCE, s.stop)) for at in range(s.start, s.stop, BLAS_AT_ONCE)
        )
        for s in slices
    ]
    picked = [slice(s.start, s.stop, histogram.distance(s.stop - s.start)) for s in slices]
    lengths = [len(range(s.start, s.stop, s.step)) for s in picked]
    return Layout(
        np.array([s.start for s in slices], np.intp),
        tuple(slices),
        tuple(pieces),
        tuple(picked),
        np.repeat(np.arange(len(sizes), dtype=np.intp) * histogram.PLACES, lengths),
    )


class Packed:
    """Small tensors end to end in float32.

    Few calls go over all elements; what follows for each tensor is plain Python, as each call of numpy for so few
    numbers would take longer than it.
    """

    def __init__(self, values: Floats, sizes: tuple[int, ...]) -> None:
        """`values`: all elements; `sizes`: how many each tensor has, at least one tensor and none of them 0."""
        self._values = values
        self._layout = layout(sizes)

    @property
    def parts(self) -> list[Floats]:
        """The elements of each tensor."""
        return [self._values[part] for part in self._layout.slices]

    @np.errstate(all="ignore")
    def moments(self, zeros: bool = False) -> list[Moments[float]]:
        """What `stats.moments` gives for each."""
        values, begins = self._values, self._layout.begins
        bounds = zip(
            np.minimum.reduceat(values, begins).tolist(),
            np.maximum.reduceat(values, begins).tolist(),
            strict=True,
        )
        found = zip(np.add.reduceat(values, begins).tolist(), self._squares(), strict=True)
        return [
            finish(part, sums, limits, part, zeros)
            for part, sums, limits in zip(self.parts, found, bounds, strict=True)
        ]

    @np.errstate(all="ignore")
    def as_changes(self) -> tuple[list[float], list[float]]:
        """Of differences: the sum of their squares for each tensor, and the share of elements without any."""
        squares = [
            found if 1e-28 < found < 1e30 else sum_of_squares(part)
            for part, found in zip(self.parts, self._squares(), strict=True)
        ]
        still = self._values == 0
        counts = [
            np.count_nonzero(still[part]) / (part.stop - part.start) for part in self._layout.slices
        ]
        return squares, counts

    def histograms(self) -> npt.NDArray[np.int64]:
        """What `histogram.count` gives for each; shape `(tensors, BINS)`."""
        picked = np.concatenate([self._values[part] for part in self._layout.picked])
        return histogram.count_together(picked, self._layout.offsets, len(self._layout.begins))

    def _squares(self) -> list[float]:
        """Sum of squares of each tensor, as far as float32 holds it."""
        found = []
        for pieces in self._layout.pieces:
            total = 0.0
            for piece in pieces:
                part = self._values[piece]
                total += float(part.dot(part))
            found.append(total)
        return found
