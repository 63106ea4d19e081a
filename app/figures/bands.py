"""How far a statistic is from where healthy networks have it.

A score is signed: 0 within the healthy band, negative too small, positive too large; just outside it is
`EDGE`, each decade further adds 1, and it ends at ±`FULL`. The bands are wide on purpose: over nets,
optimizers and schedules healthy values differ by orders of magnitude, so most statistics are held against the
layer's own early values.
"""

import warnings
from typing import Final

import numpy as np

from trainvitals.app.figures.types import Floats, MatrixLike

EDGE: Final = 0.8
FULL: Final = 3.0

UPDATE_LOW: Final = 1e-7
UPDATE_HIGH: Final = 0.1
"""Healthy update ratios cover 7e-6 … 3e-2 (AdamW from warm-up to equilibrium, fine-tuning included); a schedule
may end far lower, and the rule warns above 0.1."""

DRIFT: Final = 10.0
"""Activation std against the layer's own early median: healthy within [1/10, 10]."""
STD_FLOOR: Final = 1e-3
"""Branches that start at zero have no baseline before their std reaches this."""
STD_CEILING: Final = 1e4

DEAD: Final = 0.3
"""Share of dead units from which a ReLU layer is ill; a few per cent are common."""

GRADIENT_SPIKE: Final = 100.0
GRADIENT_RISE: Final = 10.0
"""Gradient RMS against its own early median: single outliers are common, a lasting decade is not."""
GRADIENT_SPAN: Final = 1e-3
"""Gradient RMS against the median layer of the same step: three decades below, it has vanished."""


def baseline(values: Floats) -> Floats:
    """Median of each row's first values, shape `(rows,)`: of an eighth of the buckets, 5 to 40; NaN without."""
    count = min(max(values.shape[1] // 8, 5), 40)
    result = np.full(values.shape[0], np.nan)
    for index, row in enumerate(values):
        finite = row[np.isfinite(row)][:count]
        if finite.size:
            result[index] = np.median(finite)
    return result


def update_ratio(cells: MatrixLike) -> Floats:
    """Scores of update ratios, shape `(rows, buckets)`; NaN where nothing was recorded."""
    return _outside(cells.mean, cells.max, UPDATE_LOW, UPDATE_HIGH)


def activation_std(cells: MatrixLike) -> Floats:
    """Scores of activation stds against each row's own start."""
    grown = np.where(cells.mean > STD_FLOOR, cells.mean, np.nan)
    base = baseline(grown)[:, None]
    score = _outside(cells.mean, cells.max, base / DRIFT, base * DRIFT)
    huge = _outside(cells.mean, cells.max, 0.0, STD_CEILING)
    return np.where(huge > 0, np.maximum(huge, np.nan_to_num(score)), score)


def dead_units(cells: MatrixLike) -> Floats:
    """Scores of dead shares: negative above `DEAD`, since dead units are too small a signal."""
    depth = EDGE + (cells.max - DEAD) / (1 - DEAD) * (FULL - EDGE)
    score = np.where(cells.max > DEAD, -depth, 0.0)
    return np.where(np.isfinite(cells.max), score, np.nan)


def gradient_rms(cells: MatrixLike) -> Floats:
    """Scores of gradient RMS: high against its own start, low against the other layers of the step."""
    base = baseline(np.where(cells.mean > 0, cells.mean, np.nan))[:, None]
    spike = _outside(cells.max, cells.max, 0.0, base * GRADIENT_SPIKE)
    rise = _outside(cells.mean, cells.mean, 0.0, base * GRADIENT_RISE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any value is NaN
        typical = np.nanmedian(cells.mean, axis=0)[None, :]
    low = _outside(cells.mean, cells.max, typical * GRADIENT_SPAN, np.inf)
    high = np.fmax(spike, rise)
    score = np.where(low < 0, low, high)
    return np.where(np.isfinite(cells.mean), np.nan_to_num(score), np.nan)


def _outside(low: Floats, high: Floats, floor: Floats | float, ceiling: Floats | float) -> Floats:
    """Scores where `low` is below `floor` or `high` above `ceiling`; NaN where both are missing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        under = np.log10(np.maximum(low, 1e-300) / floor)
        over = np.log10(np.maximum(high, 1e-300) / ceiling)
    score = np.zeros(np.broadcast_shapes(low.shape, np.shape(floor), np.shape(ceiling)))
    score = np.where(under < 0, np.maximum(under - EDGE, -FULL), score)
    score = np.where(over > 0, np.minimum(over + EDGE, FULL), score)
    return np.where(np.isfinite(low) | np.isfinite(high), score, np.nan)
