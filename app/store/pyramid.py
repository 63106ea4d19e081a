"""Summaries of records at several widths. Pure: arrays in, arrays out.

A node sums up consecutive records of one row: the smallest, largest, mean and last value, how many were finite
and how many were not. Level 1 has nodes of 32 records, each further level of four times as many. Nodes are kept in
blocks, of 64 as a rule: one of level 1 sums up 8 blocks of records, one of any other level 4 blocks of the level below.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

FIRST_WIDTH = 32
"""Records in a node of level 1."""
FIRST_SPAN = 8
"""Blocks of records in a block of level 1."""
FAN = 4
"""Nodes of a level in one node of the next, and blocks in one block."""

_UNIFORMS_HELD = 1_024
_STEP_COST = 400
"""Runs that `reduceat` folds in the time that one place of all runs takes, however few they are."""

Numbers = npt.NDArray[np.floating[Any]]
Counts = npt.NDArray[np.int64]


class Nodes(msgspec.Struct, frozen=True):
    """Nodes of some rows; all arrays have shape (rows, n).

    min, max and mean are over finite values, NaN where there is none. last is the last value, finite or not, NaN
    where nothing was recorded. A curve makes a dozen of them, each in a tenth of a frozen dataclass's time.
    """

    min: Numbers
    max: Numbers
    mean: Numbers
    last: Numbers
    finite: Counts
    nonfinite: Counts

    @property
    def fields(self) -> tuple[npt.NDArray[Any], ...]:
        """All arrays, in the order in which a `Nodes` is made of them."""
        return (self.min, self.max, self.mean, self.last, self.finite, self.nonfinite)

    def __getitem__(self, index: Any) -> "Nodes":
        """The same selection of every array."""
        return Nodes(
            self.min[index],
            self.max[index],
            self.mean[index],
            self.last[index],
            self.finite[index],
            self.nonfinite[index],
        )

    def put(self, place: Any, nodes: "Nodes") -> None:
        """Write `nodes` to the selection `place` of every array."""
        for own, new in zip(self.fields, nodes.fields, strict=True):
            own[place] = new


def width(level: int) -> int:
    """Records in one node of `level`; level 0 is the records themselves."""
    return FIRST_WIDTH * FAN ** (level - 1) if level else 1


def spread(level: int) -> int:
    """Blocks of records that one block of `level` sums up."""
    return FIRST_SPAN * FAN ** (level - 1) if level else 1


def level_for(bucket: int) -> int:
    """The highest level whose nodes are not wider than a bucket of so many records."""
    level = 0
    while width(level + 1) <= bucket:
        level += 1
    return level


def recorded(values: Numbers, missing: np.floating[Any]) -> npt.NDArray[np.bool_]:
    """Where there is a value, NaN included: the bit pattern `missing` is none."""
    bits = f"<u{values.dtype.itemsize}"
    held: npt.NDArray[np.bool_] = values.view(bits) != missing.view(bits)
    return held


def of_records(values: Numbers, missing: np.floating[Any]) -> Nodes:
    """Nodes of level 1 of records of shape (n * FIRST_WIDTH, cells); all arrays have shape (n, cells)."""
    parts = values.reshape(-1, FIRST_WIDTH, values.shape[1])
    finite = np.isfinite(parts)
    if finite.all():
        mean = np.add.reduce(parts / np.float64(FIRST_WIDTH), axis=1)
        count = np.full(mean.shape, FIRST_WIDTH)
        return Nodes(
            parts.min(axis=1), parts.max(axis=1), mean, parts[:, -1], count, np.zeros_like(count)
        )
    shown = np.where(finite, parts, np.nan)
    present = recorded(values, missing).reshape(parts.shape)
    count = finite.sum(axis=1)
    shares = np.where(finite, parts, 0.0) / np.maximum(count, 1.0)[:, None]
    last = np.full_like(parts[:, 0], np.nan)
    for place in range(FIRST_WIDTH):
        np.copyto(last, parts[:, place], where=present[:, place])
    last[np.isnan(last)] = np.nan  # a sender is free to send a signalling NaN, which numpy warns of
    return Nodes(
        np.fmin.reduce(shown, axis=1),
        np.fmax.reduce(shown, axis=1),
        np.where(count > 0, np.add.reduce(shares, axis=1), np.nan),
        last,
        count,
        present.sum(axis=1) - count,
    )


def leaves(values: Numbers, missing: np.floating[Any]) -> Nodes:
    """Each value of shape (rows, n) as a node of its own."""
    finite = np.isfinite(values)
    if finite.all():
        return Nodes(values, values, values, values, *(uniform(n, values.shape) for n in (1, 0)))
    count = finite.astype(np.int64)
    present = recorded(values, missing)
    shown = np.where(finite, values, np.nan)
    last = np.where(np.isnan(values), np.nan, values)  # a signalling one becomes quiet
    return Nodes(shown, shown, shown, last, count, (present & ~finite).astype(np.int64))


@lru_cache(_UNIFORMS_HELD)
def uniform(number: int, shape: tuple[int, ...]) -> Counts:
    """One number everywhere, not to be written to: `np.broadcast_to`, at a tenth of its time."""
    return np.ndarray(shape, np.int64, np.int64(number).tobytes(), strides=(0,) * len(shape))


def is_uniform(counts: npt.NDArray[Any]) -> bool:
    """Whether it was made by `uniform`."""
    return counts.strides == (0,) * counts.ndim and counts.size > 0


def run_starts(numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """Where each run of equal numbers starts."""
    changed = np.empty(len(numbers), np.bool_)
    changed[:1] = True
    np.not_equal(numbers[1:], numbers[:-1], out=changed[1:])
    return changed.nonzero()[0]


def merge(nodes: Nodes, starts: npt.NDArray[np.intp]) -> Nodes:
    """Consecutive nodes as one: those from `starts[i]` up to `starts[i + 1]`, the last run to the end.

    starts: rising, the first one 0.
    """
    total = nodes.finite.shape[1]
    if len(starts) == total:
        return nodes
    runs = _Runs(starts, total)
    if runs.even and is_uniform(nodes.finite) and is_uniform(nodes.nonfinite):
        return _merge_even(nodes, runs)
    lengths = runs.lengths
    finite, nonfinite = runs.total(nodes.finite), runs.total(nodes.nonfinite)
    # Weights first: a sum of values near the largest float would overflow where their mean does not.
    if is_uniform(nodes.finite) and nodes.finite[0, 0]:  # as mostly
        whole, weights = True, (1 / lengths).repeat(lengths)
    else:
        weights = nodes.finite / np.repeat(np.maximum(finite, 1), lengths, axis=1)
        some = nodes.finite > 0
        whole = bool(some.all())
    if whole or (present := nodes.finite + nodes.nonfinite > 0).all():
        last = nodes.last[:, starts + lengths - 1]
    else:
        latest = runs.fold(np.maximum, np.where(present, np.arange(total), -1))
        last = np.take_along_axis(nodes.last, np.maximum(latest, 0), axis=1)
        last = np.where(latest < 0, np.nan, last)
    shares = nodes.mean * weights if whole else np.where(some, nodes.mean, 0.0) * weights
    mean = runs.fold(np.add, shares)
    lowest, highest = (np.minimum, np.maximum) if whole else (np.fmin, np.fmax)
    return Nodes(
        runs.fold(lowest, nodes.min),
        runs.fold(highest, nodes.max),
        mean if whole else np.where(finite > 0, mean, np.nan),
        last,
        finite,
        nonfinite,
    )


def _merge_even(nodes: Nodes, runs: "_Runs") -> Nodes:
    """`merge` of runs of the same length, of nodes that all sum up as many records: most of what is read."""
    length, shape = runs.longest, (len(nodes.finite), len(runs.starts))
    return Nodes(
        runs.fold(np.minimum, nodes.min),
        runs.fold(np.maximum, nodes.max),
        runs.fold(np.add, nodes.mean * np.float64(1 / length)),  # as means add up in float64
        nodes.last[:, length - 1 :: length],
        *(uniform(length * int(own[0, 0]), shape) for own in (nodes.finite, nodes.nonfinite)),
    )


class _Runs:
    """Runs of consecutive nodes that become one each."""

    def __init__(self, starts: npt.NDArray[np.intp], total: int) -> None:
        self.starts = starts
        self.lengths = np.empty_like(starts)
        self.lengths[:-1], self.lengths[-1] = starts[1:], total
        self.lengths -= starts
        self.longest = int(np.maximum.reduce(self.lengths))
        self.even = self.longest * len(starts) == total

    @cached_property
    def _later(self) -> list[npt.NDArray[np.intp]]:
        """Which runs have a second node, which a third one, ..."""
        return [np.flatnonzero(self.lengths > place) for place in range(1, self.longest)]

    def total(self, counts: Counts) -> Counts:
        """The sum of each run."""
        if is_uniform(counts):
            if not counts[0, 0]:
                return uniform(0, (len(counts), len(self.starts)))
            return (counts[:1, :1] * self.lengths).repeat(len(counts), axis=0)
        return self.fold(np.add, counts)

    def fold(self, operation: np.ufunc, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`operation.reduceat` along the last axis; for many short runs many times as fast."""
        folded: npt.NDArray[Any]
        starts, longest = self.starts, self.longest
        if longest * _STEP_COST > len(values) * len(starts):
            folded = operation.reduceat(values, starts, axis=1)
        elif self.even:
            folded = operation(values[:, ::longest], values[:, 1::longest])
            for place in range(2, longest):
                operation(folded, values[:, place::longest], out=folded)
        else:
            folded = values.take(starts, axis=1)
            for place, runs in enumerate(self._later, 1):
                folded[:, runs] = operation(folded[:, runs], values[:, starts[runs] + place])
        return folded


def coarsen(nodes: Nodes, factor: int) -> Nodes:
    """Every `factor` consecutive nodes as one."""
    return merge(nodes, np.arange(0, nodes.finite.shape[1], factor))


def empty(rows: int, count: int) -> Nodes:
    """Nodes of nothing."""
    nothing = np.full((4, rows, count), np.nan)
    zero = np.zeros((2, rows, count), np.int64)
    return Nodes(*nothing, *zero)


def writable(nodes: Nodes) -> Nodes:
    """`nodes` in arrays that may be written to and hold any number, one for each field (unlike in `leaves`)."""
    apart = len(set(map(id, nodes.fields))) == len(nodes.fields)
    free = all(field.flags.writeable for field in nodes.fields)
    if apart and free and nodes.min.dtype == np.float64:
        return nodes

    def copied(field: npt.NDArray[Any]) -> Any:
        return np.array(field, np.float64 if field.dtype.kind == "f" else np.int64)

    return Nodes(*map(copied, nodes.fields))


def join(parts: Sequence[Nodes]) -> Nodes:
    """Nodes one after the other, of the same rows."""
    if len(parts) == 1:
        return parts[0]
    fields = zip(*(part.fields for part in parts), strict=True)
    return Nodes(*(np.concatenate(field, axis=1) for field in fields))


def combine(earlier: Nodes, later: Nodes) -> Nodes:
    """Nodes of the same shape, each pair as one."""
    finite = earlier.finite + later.finite
    total = np.maximum(finite, 1)
    mean = np.where(earlier.finite > 0, earlier.mean * (earlier.finite / total), 0.0)
    mean = mean + np.where(later.finite > 0, later.mean * (later.finite / total), 0.0)
    return Nodes(
        np.fmin(earlier.min, later.min),
        np.fmax(earlier.max, later.max),
        np.where(finite > 0, mean, np.nan),
        np.where(later.finite + later.nonfinite > 0, later.last, earlier.last),
        finite,
        earlier.nonfinite + later.nonfinite,
    )
