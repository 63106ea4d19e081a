"""How far a statistic is from where healthy networks have it.

A score is signed: 0 within the healthy band, negative too small, positive too large; just outside it is
`EDGE`, each decade further adds 1, and it ends at ±`FULL`. The bands are wide on purpose: over nets,
optimizers and schedules healthy values differ by orders of magnitude, so most statistics are held against the
layer's own levels in the same run.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from trainvitals.app.figures.types import Flags, Floats, Ints, MatrixLike

EDGE: Final = 0.8
FULL: Final = 3.0

UPDATE_LOW: Final = 1e-7
UPDATE_HIGH: Final = 0.1
"""Healthy update ratios cover 7e-6 … 3e-2 (AdamW from warm-up to equilibrium, fine-tuning included); a schedule
may end far lower, and the rule warns above 0.1."""

DRIFT: Final = 10.0
"""Activation std and gradient RMS against the layer's own levels: healthy within [1/10, 10]."""
SETTLING: Final = 100.0
"""How far a healthy layer's usual level may be from the one it starts at: logits grow from 0.1 to 10."""
FEWEST: Final = 5
"""Values that make a first level."""
STD_FLOOR: Final = 1e-3
"""Branches that start at zero have no baseline before their std reaches this."""
STD_CEILING: Final = 1e4

DEAD: Final = 0.3
"""Share of dead units from which a ReLU layer is ill; a few per cent are common."""

GRADIENT_SPIKE: Final = 100.0
"""A single gradient against the layer's levels: outliers of a decade are common."""
GRADIENT_SPAN: Final = 1e-3
"""Gradient RMS against the median layer of the same step: three decades below, it has vanished."""


SMALLEST: Final = 1e-300
"""Stands for zero where a logarithm is taken."""


class Levels(msgspec.Struct, frozen=True):
    """Where each row's values are in the run at hand, shape `(rows,)`; NaN for rows without values."""

    low: Floats
    high: Floats


def baseline(values: Floats) -> Floats:
    """Median of each row's first values, shape `(rows,)`: of an eighth of the buckets, 5 to 40; NaN without."""
    count = min(max(values.shape[1] // 8, FEWEST), 40)
    finite = np.isfinite(values)
    early = finite & (np.cumsum(finite, axis=1, dtype=np.int32) <= count)
    reach = int(np.flatnonzero(early.any(axis=0))[-1]) + 1 if early.any() else 0
    return _median(np.where(early, values, np.nan)[:, :reach], np.ones(reach))


def levels(values: Floats, steps: Ints) -> Levels:
    """The level each row of `values` starts at and the one it is usually at, the lower and the higher of them.

    Usual is the median over steps, not samples: the first steps are sampled more densely. It counts for no more
    than `SETTLING` times the start, so that a run that diverges early doesn't become its own measure.
    """
    start = baseline(values)
    gaps = np.diff(steps) if len(steps) > 1 else np.ones(len(steps))
    weights = np.append(gaps, gaps[-1:])[: len(steps)].astype(np.float64)
    usual = _median(values, weights)
    usual = np.clip(usual, start / SETTLING, start * SETTLING)
    first = baseline(
        values[:, :FEWEST]
    )  # a quick rise within `start` is no illness of the steps before it
    return Levels(np.fmin(np.fmin(start, usual), first), np.fmax(start, usual))


def std_levels(cells: MatrixLike) -> Levels:
    """The levels of activation stds."""
    return levels(np.where(cells.mean > STD_FLOOR, cells.mean, np.nan), cells.steps)


def size_levels(cells: MatrixLike) -> Levels:
    """The levels of gradient RMS and of other sizes."""
    return levels(np.where(cells.mean > 0, cells.mean, np.nan), cells.steps)


def ratio_levels(cells: MatrixLike) -> Levels:
    """What the largest update ratio of a step is usually: one level for all rows, shape `(1,)`."""
    usual = np.atleast_1d(along(np.nanmedian, _largest(cells), 0))
    return Levels(usual, usual)


def _largest(cells: MatrixLike) -> Floats:
    """The largest update ratio of each step, shape `(buckets,)`."""
    return np.asarray(along(np.nanmax, np.where(np.isfinite(cells.mean), cells.mean, np.nan), 0))


def update_ratio(cells: MatrixLike, known: Levels | None = None) -> Floats:
    """Scores of update ratios, shape `(rows, buckets)`; NaN where nothing was recorded.

    The lower edge falls with the step's largest ratio: a schedule that ends at zero makes no layer ill.
    """
    top = _largest(cells)
    usual = float((known or ratio_levels(cells)).high[0])
    scheduled = np.fmin(top / usual, 1.0) if usual > 0 else np.ones(top.shape)
    return _outside(cells.mean, cells.max, UPDATE_LOW * scheduled[None, :], UPDATE_HIGH)


def activation_std(
    cells: MatrixLike, known: Levels | None = None, loose: Flags | None = None
) -> Floats:
    """Scores of activation stds against each row's levels (`known`: those of the whole run).

    loose: `(rows,)`, the rows at the output, whose scale a training may choose: their band is a decade wider.
    """
    found = known or std_levels(cells)
    wide = np.full(len(found.low), DRIFT) if loose is None else np.where(loose, DRIFT**2, DRIFT)
    low, high = (found.low / wide)[:, None], (found.high * wide)[:, None]
    score = _outside(cells.mean, cells.max, low, high, fade=True)
    huge = _outside(cells.mean, cells.max, 0.0, STD_CEILING)
    return np.where(huge > 0, np.maximum(huge, np.nan_to_num(score)), score)


def dead_units(cells: MatrixLike) -> Floats:
    """Scores of dead shares: negative above `DEAD`, since dead units are too small a signal."""
    depth = EDGE + (cells.max - DEAD) / (1 - DEAD) * (FULL - EDGE)
    score = np.where(cells.max > DEAD, -depth, 0.0)
    return np.where(np.isfinite(cells.max), score, np.nan)


def gradient_rms(cells: MatrixLike, known: Levels | None = None) -> Floats:
    """Scores of gradient RMS: high against each row's levels, low against the other layers of the step.

    Small gradients alone are no illness: they shrink as a training converges.
    """
    high = (known or size_levels(cells)).high[:, None]
    spike = _outside(cells.max, cells.max, 0.0, high * GRADIENT_SPIKE)
    rise = _outside(cells.mean, cells.mean, 0.0, high * DRIFT, fade=True)
    typical = along(np.nanmedian, cells.mean, 0)[None, :]
    low = _outside(cells.mean, cells.max, typical * GRADIENT_SPAN, np.inf)
    score = np.where(low < 0, low, np.fmax(spike, rise))
    return np.where(np.isfinite(cells.mean), np.nan_to_num(score), np.nan)


def drift(cells: MatrixLike, known: Levels | None = None) -> Floats:
    """Scores of any other size against each row's own levels: pale within a decade of them."""
    own = known or size_levels(cells)
    low, high = (own.low / DRIFT)[:, None], (own.high * DRIFT)[:, None]
    return _outside(cells.mean, cells.max, low, high, fade=True)


_WHOLE: dict[Callable[..., Any], Callable[..., Any]] = {
    np.nanmax: np.max,
    np.nanmedian: np.median,
}


def along(sum_up: Callable[..., Any], values: Floats, axis: int) -> Floats:
    """What `sum_up` (`np.nanmax`, `np.nanmedian`) makes of the values along `axis`; NaN where there is none.

    It gives no warning there; to hush those of numpy would hush, and unhush, those of all threads.
    """
    missing = np.isnan(values)
    if (
        values.size and not missing.any()
    ):  # numpy takes ten times as long to leave out what is not there
        return np.asarray(_WHOLE[sum_up](values, axis=axis))
    empty = missing.all(axis=axis)
    held = np.where(np.expand_dims(empty, axis), 0.0, values)
    found = sum_up(held, axis=axis) if values.shape[axis] else np.nan
    return np.where(empty, np.nan, found)


def _median(values: Floats, weights: Floats) -> Floats:
    """Weighted median of each row's finite values, shape `(rows,)`; NaN for a row without any."""
    if not values.shape[1]:
        return np.full(values.shape[0], np.nan)
    known = np.isfinite(values)
    order = np.argsort(np.where(known, values, np.inf), axis=1, kind="stable")
    total = np.cumsum(np.where(known, weights, 0.0)[np.arange(len(values))[:, None], order], axis=1)
    middle = (total < total[:, -1:] / 2).sum(axis=1)
    middle = np.minimum(middle, values.shape[1] - 1)
    rows = np.arange(len(values))
    return np.where(known.any(axis=1), values[rows, order[rows, middle]].astype(np.float64), np.nan)


def _outside(
    low: Floats,
    high: Floats,
    floor: Floats | float,
    ceiling: Floats | float,
    *,
    fade: bool = False,
) -> Floats:
    """Scores where `low` is below `floor` or `high` above `ceiling`; NaN where both are missing.

    fade: begin at 0 at the band's edge and reach `EDGE` a decade further, for bands without a sharp edge.
    """
    score = np.where(np.isfinite(low) | np.isfinite(high), 0.0, np.nan)
    for side, values, edge in ((-1, low, floor), (1, high, ceiling)):
        sizes = np.maximum(values, 0.0)
        out = (sizes < edge if side < 0 else sizes > edge) & ~np.isnan(score)
        if not out.any():  # of most runs every cell is healthy
            continue
        found = np.maximum(sizes[out].astype(np.float64), SMALLEST)
        beyond = found / np.broadcast_to(edge, values.shape)[out]
        far = side * np.log10(beyond)
        size = np.maximum(EDGE * np.minimum(far, 1), EDGE - 1 + far) if fade else EDGE + far
        score[out] = side * np.minimum(size, FULL)
    return score
