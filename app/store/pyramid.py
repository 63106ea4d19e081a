"""Summaries of records at several widths. Pure: arrays in, arrays out.

A node sums up consecutive records of one row: the smallest, largest, mean and last value, how many were finite
and how many were not. Level 1 has nodes of 16 records, each further level of four times as many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FIRST_WIDTH = 16
"""Records in a node of level 1."""
FAN = 4
"""Nodes of a level in one node of the next."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of some rows; all arrays have shape (rows, n).

    min, max and mean are over finite values, NaN where there is none. last is the last value, finite or not, NaN
    where nothing was recorded.
    """

    min: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    last: npt.NDArray[np.float64]
    finite: npt.NDArray[np.int64]
    nonfinite: npt.NDArray[np.int64]

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


def width(level: int) -> int:
    """Records in one node of `level`; level 0 is the records themselves."""
    return FIRST_WIDTH * FAN ** (level - 1) if level else 1


def level_for(records: int, points: int) -> int:
    """The coarsest level that still gives `points` nodes for so many records."""
    level = 0
    while records >= points * width(level + 1):
        level += 1
    return level


def leaves(values: npt.NDArray[Any], missing: np.floating[Any]) -> Nodes:
    """Each value of shape (rows, n) as a node of its own; the bit pattern `missing` is no value."""
    bits = f"<u{values.dtype.itemsize}"
    recorded = values.view(bits) != missing.view(bits)
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # a signalling NaN, which a sender is free to send
        wide = values.astype(np.float64)
    shown = np.where(finite, wide, np.nan)
    last = np.where(recorded, wide, np.nan)
    return Nodes(
        shown, shown, shown, last, finite.astype(np.int64), (recorded & ~finite).astype(np.int64)
    )


def first_level(values: npt.NDArray[Any], missing: np.floating[Any]) -> Nodes:
    """Values of shape (rows, n), n a multiple of `FIRST_WIDTH`, as nodes of level 1."""
    if not np.isfinite(values).all():
        return coarsen(leaves(values, missing), FIRST_WIDTH)
    # The same sums without what tells values from none, which most of a training has no use for.
    parts = values.reshape(len(values), -1, FIRST_WIDTH)
    mean = (parts * np.float64(1 / FIRST_WIDTH)).sum(axis=2)
    finite = np.full(mean.shape, FIRST_WIDTH, np.int64)
    return Nodes(
        parts.min(axis=2), parts.max(axis=2), mean, parts[:, :, -1], finite, np.zeros_like(finite)
    )


def merge(nodes: Nodes, starts: npt.NDArray[np.intp]) -> Nodes:
    """Consecutive nodes as one: those from `starts[i]` up to `starts[i + 1]`, the last run to the end.

    starts: rising, the first one 0.
    """
    count = nodes.finite.shape[1]
    finite = np.add.reduceat(nodes.finite, starts, axis=1)
    recorded = (nodes.finite + nodes.nonfinite) > 0
    latest = np.maximum.reduceat(np.where(recorded, np.arange(count), -1), starts, axis=1)
    last = np.take_along_axis(nodes.last, np.maximum(latest, 0), axis=1)
    return Nodes(
        np.fmin.reduceat(nodes.min, starts, axis=1),
        np.fmax.reduceat(nodes.max, starts, axis=1),
        _mean(nodes, starts, finite),
        np.where(latest < 0, np.nan, last),
        finite,
        np.add.reduceat(nodes.nonfinite, starts, axis=1),
    )


def _mean(
    nodes: Nodes, starts: npt.NDArray[np.intp], finite: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    # Weights first: a sum of values near the largest float would overflow where their mean does not.
    ends = np.append(starts[1:], nodes.finite.shape[1])
    total = np.repeat(np.maximum(finite, 1), ends - starts, axis=1)
    parts = np.where(nodes.finite > 0, nodes.mean * (nodes.finite / total), 0.0)
    return np.where(finite > 0, np.add.reduceat(parts, starts, axis=1), np.nan)


def coarsen(nodes: Nodes, factor: int) -> Nodes:
    """Every `factor` consecutive nodes as one."""
    return merge(nodes, np.arange(0, nodes.finite.shape[1], factor))


def empty(rows: int, count: int) -> Nodes:
    """Nodes of nothing."""
    nothing = np.full((4, rows, count), np.nan)
    zero = np.zeros((2, rows, count), np.int64)
    return Nodes(*nothing, *zero)


def join(parts: Sequence[Nodes]) -> Nodes:
    """Nodes one after the other, of the same rows."""
    return Nodes(
        np.concatenate([part.min for part in parts], axis=1),
        np.concatenate([part.max for part in parts], axis=1),
        np.concatenate([part.mean for part in parts], axis=1),
        np.concatenate([part.last for part in parts], axis=1),
        np.concatenate([part.finite for part in parts], axis=1),
        np.concatenate([part.nonfinite for part in parts], axis=1),
    )


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
