"""How the values of a tensor are distributed, over the steps of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainvitals.app.figures.base import array, axis, empty, layout
from trainvitals.app.figures.text import number
from trainvitals.app.figures.types import Figure, Floats, Ints, Mark
from trainvitals.hooks.wire.bins import ZERO_BIN, centers

RIDGES = 16
"""Steps in a ridgeline."""
BANDS = ((0.01, 0.99), (0.05, 0.95), (0.25, 0.75))
"""Quantiles between which the bands lie, the widest first."""


def histogram(
    steps: Ints, counts: Ints, marks: Sequence[Mark] = (), *, what: str, stop: int = 0
) -> Figure:
    """Histograms over time, counts `(times, bins)`: share of values in each signed-log bin.

    Each is shown up to the next, the last one up to `stop`.
    Bins that never held a value are cut off on both sides; the values axis is labelled in powers of ten.
    """
    total = counts.sum(axis=1) if len(counts) else np.zeros(0)
    if not len(steps) or not total.any():
        return empty(f"No histogram of {what} was recorded.")
    used = np.flatnonzero(counts.sum(axis=0))
    first, last = int(used[0]), int(used[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (counts[:, first : last + 1] / total[:, None]).T
        tone = np.where(share > 0, np.log10(share), np.nan).astype(np.float32)
    heat = {
        "type": "heatmap",
        "x": array(np.append(steps, max(stop, int(steps[-1]) + 1))),
        "y0": first,
        "dy": 1,
        "z": array(tone),
        "zmin": -4,
        "zmax": -0.3,
        "colorscale": [[0, "--mid"], [1, "--deep"]],
        "showscale": False,
        "hoverinfo": "none",
    }
    middle = centers()
    told = f"{len(steps)} histograms of {what}, values from {number(float(middle[first]))}"
    made = layout(
        yaxis=bin_axis(first, last),
        marks=marks,
        hovermode="closest",
        summary=f"{told} to {number(float(middle[last]))}.",
        meta={
            "bins": [float(value) for value in middle[first : last + 1]],
            "steps": steps.tolist(),
        },
    )
    return {"data": [heat], "layout": made}


def bin_axis(first: int, last: int) -> dict[str, Any]:
    """Ticks at powers of ten; bin i > ZERO_BIN begins at 2^(i - ZERO_BIN - 33)."""
    places: list[tuple[float, str]] = [(ZERO_BIN, "0")] if first <= ZERO_BIN <= last else []
    for power in range(-9, 5):
        offset = power / np.log10(2) + 32 + 0.5
        for sign in (1, -1):
            place = ZERO_BIN + sign * offset
            if first <= place <= last:
                text = {0: "1", 1: "10"}.get(power, f"1e{power}")
                places.append((place, text if sign > 0 else f"−{text}"))
    kept: list[tuple[float, str]] = []
    gap = max((last - first) / 7, 2.0)
    for place, text in sorted(places, key=lambda p: (p[1] != "0", -abs(p[0] - ZERO_BIN))):
        if all(abs(place - other) >= gap for other, _ in kept):
            kept.append((place, text))
    kept.sort()
    return axis(
        fixedrange=True,
        showgrid=False,
        range=[first - 0.5, last + 0.5],
        tickvals=[place for place, _ in kept],
        ticktext=[text for _, text in kept],
    )


def quantiles(steps: Ints, counts: Ints, marks: Sequence[Mark] = (), *, what: str) -> Figure:
    """The median over the steps, with bands of 1 to 99, 5 to 95 and 25 to 75 per cent of the values."""
    filled = counts.sum(axis=1) > 0 if len(counts) else np.zeros(0, np.bool_)
    if not filled.any():
        return empty(f"No histogram of {what} was recorded.")
    steps, counts = steps[filled], counts[filled]
    x = array(steps)
    data: list[dict[str, Any]] = []
    for low, high in BANDS:
        edge = {
            "type": "scatter",
            "mode": "lines",
            "line": {"width": 0},
            "hoverinfo": "skip",
            "x": x,
        }
        data.append(edge | {"y": array(places(counts, low))})
        fill = {"fill": "tonexty", "fillcolor": "--raw"}
        data.append(edge | {"y": array(places(counts, high))} | fill)
    middle = places(counts, 0.5)
    line = {"color": "--train", "width": 1.6}
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": array(middle),
            "line": line,
            "name": "median",
        }
    )
    used = np.flatnonzero(counts.sum(axis=0))
    made = layout(
        yaxis=bin_axis(int(used[0]), int(used[-1])),
        marks=marks,
        summary=f"Half of the {what} lie about {_value(middle[-1])} at step {number(int(steps[-1]))}, "
        f"{_value(middle[0])} at step {number(int(steps[0]))}.",
    )
    return {"data": data, "layout": made}


def ridgeline(steps: Ints, counts: Ints, *, what: str) -> Figure:
    """Up to `RIDGES` histograms, one above the other, the earliest on top: shares over signed-log values."""
    filled = np.flatnonzero(counts.sum(axis=1)) if len(counts) else np.zeros(0, np.int64)
    if not len(filled):
        return empty(f"No histogram of {what} was recorded.")
    chosen = filled[np.unique(np.linspace(0, len(filled) - 1, RIDGES).round().astype(int))]
    used = np.flatnonzero(counts[chosen].sum(axis=0))
    bins = np.arange(max(used[0] - 1, 0), min(used[-1] + 2, counts.shape[1]))
    shares = counts[chosen][:, bins] / counts[chosen].sum(axis=1)[:, None]
    height = 2.2 / max(float(shares.max()), 1e-12)
    data: list[dict[str, Any]] = []
    top = len(chosen) - 1
    for index, row in enumerate(shares):
        base = np.full(len(bins), float(top - index))
        common = {"type": "scatter", "mode": "lines", "x": array(bins), "hoverinfo": "skip"}
        data.append(common | {"y": array(base), "line": {"width": 0}})
        shown = {"line": {"color": "--deep", "width": 1.2}, "fill": "tonexty", "fillcolor": "--raw"}
        data.append(common | {"y": array(base + row * height)} | shown)
    every = max(1, len(chosen) // 6)
    ticks = [(float(top - i), number(int(steps[chosen[i]]))) for i in range(0, len(chosen), every)]
    made = layout(
        yaxis={
            "range": [-0.3, top + 2.4],
            "tickvals": [place for place, _ in ticks],
            "ticktext": [text for _, text in ticks],
            "showgrid": False,
        },
        summary=f"Histograms of {what} at {len(chosen)} steps, the earliest on top.",
        meta={"over": "values"},
    )
    made["xaxis"] = bin_axis(int(bins[0]), int(bins[-1]))
    return {"data": data, "layout": made}


def places(counts: Ints, share: float) -> Floats:
    """Where `share` of each row's values lie below, in bins; shape `(rows,)`. Within a bin, straight lines."""
    total = np.cumsum(counts, axis=1).astype(np.float64)
    wanted = share * total[:, -1]
    bin_ = np.minimum((total < wanted[:, None]).sum(axis=1), counts.shape[1] - 1)
    rows = np.arange(len(counts))
    held = counts[rows, bin_]
    before = total[rows, bin_] - held
    inside = np.clip((wanted - before) / np.maximum(held, 1), 0, 1)
    return np.asarray(bin_ - 0.5 + inside)


def _value(place: float) -> str:
    return number(float(centers()[int(np.clip(round(place), 0, len(centers()) - 1))]))
