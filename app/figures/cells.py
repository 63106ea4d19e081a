"""Rows and step buckets of the vitals map: statistics of layers and parameters on one common grid."""

from collections.abc import Sequence

import msgspec
import numpy as np

from trainvitals.app.figures.types import Flags, Floats, Ints, MatrixLike


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
    low, high = np.full(shape, np.nan), np.full(shape, np.nan)
    mean, broken = np.full(shape, np.nan), np.zeros(shape, np.int64)
    if len(steps) and len(cells.steps):
        target = np.maximum(np.searchsorted(steps, cells.steps, side="right") - 1, 0)
        for index, members in enumerate(lines):
            if not members:
                continue
            rows = np.asarray(members)
            np.fmin.at(low[index], target, np.fmin.reduce(cells.min[rows]).astype(np.float64))
            np.fmax.at(high[index], target, np.fmax.reduce(cells.max[rows]).astype(np.float64))
            np.fmax.at(mean[index], target, np.fmax.reduce(cells.mean[rows]).astype(np.float64))
            np.add.at(broken[index], target, np.asarray(cells.nonfinite)[rows].sum(axis=0))
    return Cells(steps, low, high, mean, broken)


def grid(matrices: Sequence[MatrixLike]) -> Ints:
    """The bucket starts that all `matrices` are brought to: those of the one with the most buckets."""
    best = max(matrices, key=lambda m: len(m.steps), default=None)
    return np.zeros(0, np.int64) if best is None else np.asarray(best.steps, np.int64)


def positive(cells: Cells) -> Flags:
    """Where a counting statistic was above zero, shape `(rows, buckets)`."""
    return np.asarray(np.nan_to_num(cells.max) > 0)
