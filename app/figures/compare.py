"""Several runs in one picture: curves laid over each other, and where the layers of two of them part."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from trainvitals.app.figures.base import (
    MARGIN,
    array,
    empty,
    layout,
    linear_axis,
    log_axis,
    wants_log,
)
from trainvitals.app.figures.cells import Cells, Line
from trainvitals.app.figures.marks import headroom
from trainvitals.app.figures.series import broken as broken_marks
from trainvitals.app.figures.series import smooth
from trainvitals.app.figures.text import hover, number
from trainvitals.app.figures.types import Figure, Flags, Floats, Mark, SeriesLike
from trainvitals.app.figures.vitals import DIVERGING, TITLES, rows_axis

COLORS = ("--run1", "--run2", "--run3", "--run4", "--run5", "--run6", "--run7")
DASHES = ("solid", "dash", "dot")
"""With the colours 21 different curves: a run is never told by its colour alone."""
FULL = 2.0
"""log10 of the ratio at which a cell has its full colour: a hundred times."""
PARTED = 0.3
"""log10 of the ratio from which two layers differ: twice."""
NOISE = 5.0
"""How many times the usual jitter between two samples a difference has to be."""
LASTING = 3
"""Buckets for which it has to last: one odd sample is no difference."""


class Parting(msgspec.Struct, frozen=True):
    """Where the layers of two runs part for good."""

    step: int
    rows: list[int]
    """Indices of the layers that part there, in forward order."""


def style(index: int) -> dict[str, str]:
    """Colour and dash of the run at that place in the comparison."""
    return {
        "color": COLORS[index % len(COLORS)],
        "dash": DASHES[index // len(COLORS) % len(DASHES)],
    }


def curves(
    series: Mapping[str, SeriesLike | None],
    names: Mapping[str, str],
    what: str,
    marks: Sequence[Mark] = (),
) -> Figure:
    """One scalar of several runs (by id), smoothed; `names` are the runs' names. A run without it is left out.

    Where a run's values are NaN or infinite its curve has crosses. marks: what happened in the runs.
    """
    shown = {run: item for run, item in series.items() if item is not None and len(item.steps)}
    if not shown:
        return empty(f"None of these runs recorded {what}.")
    order = list(series)
    values = np.concatenate([item.mean for item in shown.values()])
    data, crosses, ends = [], [], []
    for run, item in shown.items():
        smoothed = smooth(item.mean)
        own = style(order.index(run))
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": array(item.steps),
                "y": array(smoothed),
                "line": own | {"width": 1.8},
                "name": hover(names[run], 40),
                "hovertemplate": f"{hover(names[run], 30)} %{{y:.3g}}<extra></extra>",
            }
        )
        crosses += broken_marks(item, f"{hover(names[run], 30)} NaN or Inf", own["color"])
        finite = smoothed[np.isfinite(smoothed)]
        end = number(float(finite[-1])) if finite.size else "NaN"
        ends.append(f"{names[run][:60]} ends at {end}")
    axis = log_axis(values) if wants_log(values) else linear_axis(values)
    summary = f"{what}: {'; '.join(ends[:20])}."
    made = layout(yaxis=axis, marks=marks, summary=summary)
    made["margin"] = MARGIN | {"t": max(headroom(marks), 10), "r": 20}
    last = max(int(item.steps[-1]) for item in shown.values())
    made["xaxis"]["range"] = [min(int(item.steps[0]) for item in shown.values()), max(last, 1)]
    return {"data": data + crosses, "layout": made}


def log_ratio(first: Cells, second: Cells) -> Floats:
    """log10 of `first` over `second` in each cell, both on one grid; NaN where either has no positive value."""
    a, b = np.abs(first.mean), np.abs(second.mean)
    fine = (a > 0) & (b > 0) & np.isfinite(a) & np.isfinite(b)
    result = np.full(a.shape, np.nan)
    result[fine] = np.log10(a[fine]) - np.log10(b[fine])
    return result


def parting(ratio: Floats, broken: Flags, steps: Sequence[int]) -> Parting | None:
    """Where layers begin to differ, and go on to: by more than `PARTED` and by more than their jitter.

    ratio: `log_ratio`, shape (rows, buckets). broken: where one run has NaN and the other doesn't. None: they never do.
    """
    apart = broken | (np.abs(np.nan_to_num(ratio)) > np.maximum(PARTED, NOISE * _jitter(ratio)))
    seen = broken | np.isfinite(ratio)
    starts = [_lasting(apart[row], seen[row]) for row in range(len(ratio))]
    found = [start for start in starts if start is not None]
    if not found:
        return None
    first = min(found)
    return Parting(int(steps[first]), [row for row, start in enumerate(starts) if start == first])


def _jitter(ratio: Floats) -> Floats:
    """The usual change of each row from one sample to the next, shape (rows, 1): what chance does."""
    steps = np.abs(np.diff(ratio, axis=1))
    counts = np.isfinite(steps).sum(axis=1)
    usual = np.zeros(len(ratio))
    for row in np.flatnonzero(counts >= LASTING):
        usual[row] = np.nanmedian(steps[row])
    return usual[:, None]


def _lasting(apart: Flags, seen: Flags) -> int | None:
    """The first bucket from which a row is apart in `LASTING` samples that follow each other, or to its end."""
    places = np.flatnonzero(seen)
    flags = apart[places]
    need = min(LASTING, len(flags))
    if need == 0:
        return None
    for start in range(len(flags) - need + 1):
        if flags[start : start + need].all():
            return int(places[start])
    return None


def difference(
    lines: Sequence[Line],
    ratio: Floats,
    broken: Flags,
    steps: Any,
    stop: int,
    told: str,
    key: str,
    marks: Sequence[Mark] = (),
) -> Figure:
    """The map of `ratio`: layers x steps, blue where the first run is smaller, orange where it is larger.

    broken: where one run has NaN and the other doesn't. told: the picture in words. marks: what happened in the runs.
    """
    if not len(lines) or not len(steps) or not (np.isfinite(ratio).any() or broken.any()):
        return empty(f"These two runs have no layer in common that recorded {TITLES[key]}.")
    edges = np.append(steps, max(stop, int(steps[-1]) + 1))
    heat = {"type": "heatmap", "x": array(edges), "showscale": False, "y0": 0, "dy": 1}
    colors = {"colorscale": DIVERGING, "zmin": -FULL, "zmax": FULL}
    data: list[dict[str, Any]] = [
        heat | colors | {"z": array(np.clip(ratio, -FULL, FULL).astype(np.float32))}
    ]
    if broken.any():
        solid = {"colorscale": [[0, "--nan"], [1, "--nan"]], "zmin": 0, "zmax": 1}
        flags = np.where(broken, 1.0, np.nan).astype(np.float32)
        data.append(heat | solid | {"z": array(flags)})
    meta = {
        "lines": [line.name or "(root)" for line in lines],
        "steps": np.asarray(steps).tolist(),
        "ratio": array(ratio.astype(np.float32)),
    }
    made = layout(
        yaxis=rows_axis(lines, np.zeros(0, int), []),
        marks=marks,
        summary=told,
        hovermode="closest",
        meta=meta,
    )
    made["plot_bgcolor"] = "--unseen"
    made["margin"] = MARGIN | {"r": 20}
    made["xaxis"]["range"] = [int(edges[0]), int(edges[-1])]
    return {"data": data, "layout": made}
