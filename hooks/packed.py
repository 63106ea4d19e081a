"""Statistics of many small CPU tensors at once.

Between two layers of a model every line of Python and numpy runs from a cold cache, several times as slow as in a
loop. So small tensors are measured together.
"""

from collections.abc import Sequence
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
from trainvitals.hooks.stats import Moments, finish, sum_of_squares, sums

SMALL = 1 << 15
"""Elements up to which a tensor is small: calling numpy or torch for it costs more than the arithmetic."""
_TINY = 1 << 10
"""Elements up to which it costs less to copy them next to each other than to call numpy for each."""


def is_small(tensor: Tensor) -> bool:
    """Whether a tensor that `plain` gave is one for `Packed`."""
    return tensor.numel() <= SMALL and tensor.dtype is not torch.float64 and readout.on_host(tensor)


def is_single(values: Array) -> bool:
    """Whether values are float32, whose sums `Packed` knows how to take."""
    return values.dtype == np.float32


class Layout(NamedTuple):
    """What follows from the sizes of tensors."""

    tiny: tuple[int, ...]
    """Places of those that are copied next to each other."""
    begins: npt.NDArray[np.intp]
    """Where each of them begins there."""
    others: tuple[int, ...]
    """Places of all others."""
    picked: tuple[slice, ...]
    """Elements of each of which the signs and exponents are counted."""
    offsets: npt.NDArray[np.intp]
    """For each of these, end to end: where the counts of its tensor begin."""


@lru_cache(maxsize=8)
def layout(sizes: tuple[int, ...]) -> Layout:
    """Of tensors of these sizes, none of them 0: the same ones come at every sample."""
    tiny = tuple(i for i, size in enumerate(sizes) if size <= _TINY)
    picked = tuple(slice(0, size, histogram.distance(size)) for size in sizes)
    lengths = [len(range(0, size, s.step)) for size, s in zip(sizes, picked, strict=True)]
    return Layout(
        tiny,
        np.array([0, *accumulate(sizes[i] for i in tiny)][:-1], np.intp),
        tuple(i for i, size in enumerate(sizes) if size > _TINY),
        picked,
        np.repeat(np.arange(len(sizes), dtype=np.intp) * histogram.PLACES, lengths),
    )


class Packed:
    """Small tensors in float32, wherever they lie.

    Few calls go over all elements; what follows for each tensor is plain Python, as each call of numpy for so few
    numbers would take longer than it.
    """

    def __init__(self, parts: Sequence[Floats]) -> None:
        """`parts`: the elements of each, at least one tensor and none of them empty."""
        self._parts = parts
        self._layout = layout(tuple(map(len, parts)))

    @np.errstate(all="ignore")
    def moments(self, zeros: bool = False) -> list[Moments[float]]:
        """What `stats.moments` gives for each."""
        parts, layout = self._parts, self._layout
        bounds, totals = [(0.0, 0.0)] * len(parts), [(0.0, 0.0)] * len(parts)
        if layout.tiny:
            joined = np.concatenate([parts[i] for i in layout.tiny])
            found = (f.reduceat(joined, layout.begins).tolist() for f in _OUTLINE)
            for i, low, high, total in zip(layout.tiny, *found, strict=True):
                bounds[i], totals[i] = (low, high), (total, float(parts[i].dot(parts[i])))
        for i in layout.others:
            part = parts[i]
            bounds[i] = float(np.minimum.reduce(part)), float(np.maximum.reduce(part))
            totals[i] = sums(part)
        return [
            finish(part, total, limits, part, zeros)
            for part, total, limits in zip(parts, totals, bounds, strict=True)
        ]

    @np.errstate(all="ignore")
    def as_changes(self) -> tuple[list[float], list[float]]:
        """Of differences: the sum of their squares for each tensor, and the share of elements without any."""
        squares = [sum_of_squares(part) for part in self._parts]
        return squares, [np.count_nonzero(part == 0) / len(part) for part in self._parts]

    def histograms(self) -> npt.NDArray[np.int64]:
        """What `histogram.count` gives for each; shape `(tensors, BINS)`."""
        places = zip(self._parts, self._layout.picked, strict=True)
        picked = np.concatenate([part[some] for part, some in places])
        return histogram.count_together(picked, self._layout.offsets, len(self._parts))


_OUTLINE = (np.minimum, np.maximum, np.add)
