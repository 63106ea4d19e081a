"""Rows and step buckets of the vitals map: statistics of layers and parameters on one common grid."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from trainvitals.app.figures.types import Floats, Ints, MatrixLike


class Cells(msgspec.Struct, frozen=True):
    """A statistic on the map's grid; arrays `(rows, buckets)`, NaN where nothing was recorded."""

    steps: Ints
    min: Floats
    max: Floats
    mean: Floats
    nonfinite: Ints


class Line(msgspec.Struct, frozen=True):
    """One layer, as a row of the map."""

    name: str
    type: str = ""
    trainable: bool = True
    parameters: list[str] = []
    """Names of its parameters."""
    weights: list[str] = []
    """Those with two or more dimensions: what update ratios are judged on."""


def gather(cells: MatrixLike, steps: Ints, lines: Sequence[Sequence[int]]) -> Cells:
    """Bring `cells` onto the buckets that begin at `steps`, and its rows together into `lines`.

    A line's value is the extreme of its rows: the smallest minimum, the largest maximum, the largest mean; a
    line without rows is NaN. Every bucket of `cells` falls into the last bucket that begins no later.
    """
    shape = (len(lines), len(steps))
    if not len(steps) or not len(cells.steps):
        none = np.full(shape, np.nan)
        return Cells(steps, none, none, none, np.zeros(shape, np.int64))
    members = np.array([row for rows in lines for row in rows], np.intp)
    sizes = np.array([len(rows) for rows in lines], np.intp)
    filled = np.flatnonzero(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes[filled])[:-1]]).astype(np.intp)
    target = np.maximum(np.searchsorted(steps, cells.steps, side="right") - 1, 0)

    def brought(values: Floats | Ints, reduce: np.ufunc, none: float) -> Any:
        chosen = np.asarray(values)
        if not np.array_equal(members, np.arange(len(chosen))):
            chosen = chosen[members]
        if len(members) != len(filled):
            chosen = reduce.reduceat(chosen, starts, axis=0)
        first = np.flatnonzero(np.diff(target, prepend=-1))
        if len(first) != len(target):
            chosen = reduce.reduceat(chosen, first, axis=1)
        if chosen.shape == shape:  # every line has a value in every bucket
            return chosen
        result = np.full(shape, none, chosen.dtype)
        result[np.ix_(filled, target[first])] = chosen
        return result

    return Cells(
        steps,
        brought(cells.min, np.fmin, np.nan),
        brought(cells.max, np.fmax, np.nan),
        brought(cells.mean, np.fmax, np.nan),
        brought(cells.nonfinite, np.add, 0),
    )


def grid(matrices: Sequence[MatrixLike]) -> Ints:
    """The bucket starts that all `matrices` are brought to: those of the one with the most buckets."""
    best = max(matrices, key=lambda m: len(m.steps), default=None)
    return np.zeros(0, np.int64) if best is None else np.asarray(best.steps, np.int64)
