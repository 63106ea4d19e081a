"""Curves of scalars: the loss, and every other metric as a small chart."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from trainvitals.app.figures.bands import along
from trainvitals.app.figures.base import (
    MARGIN,
    array,
    empty,
    layout,
    linear_axis,
    log_axis,
    wants_log,
)
from trainvitals.app.figures.marks import headroom
from trainvitals.app.figures.text import hover, label, number
from trainvitals.app.figures.types import Figure, Floats, Mark, SeriesLike

SMOOTHING = 60
"""The smoothed line averages over about this part of the chart's width."""

MAX_VALIDATION = 3
SPIKE = 8.0
"""How many usual deviations above its neighbours a value is marked."""
NEIGHBOURS = 8
"""Buckets on each side that a value is held against."""

AMOUNTS = ("GiB", "cores")
"""Units of what is used of something: shown from zero on, so that a ripple looks like one."""

COLORS = ("--train", "--val", "--high", "--low", "--ok", "--val2", "--val3")
"""Of the curves in one small chart, in order."""


def loss(
    training: SeriesLike | None,
    validation: Mapping[str, SeriesLike],
    marks: Sequence[Mark] = (),
    *,
    name: str = "loss",
    smoothing: float | None = None,
    scale: str = "auto",
) -> Figure:
    """The training loss: its range in each bucket in grey, a smoothed line, validation, events.

    Buckets with a NaN or infinite loss have a mark, and so have those with a value far above their neighbours'.
    smoothing: see `smooth`. scale: "log" and "linear" ask for an axis where "auto" looks at the values.
    """
    if training is None or not len(training.steps):
        return empty("No loss yet. Log one: tv.log({'loss': loss})")
    everything = np.concatenate([training.mean, *(v.mean for v in validation.values())])
    logarithmic = wants_log(everything) if scale == "auto" else scale == "log"
    data = _range(training)
    smoothed = smooth(training.mean, smoothing)
    told = f"{hover(name)} %{{y:.3g}}<extra></extra>"
    data.append(_curve(training.steps, smoothed, "--train", 2.0, told) | {"name": label(name, 40)})
    colors = ["--val", "--val2", "--val3"]
    ends = [_end(training, smoothed, "train", "--train")]
    for (key, series), color in zip(
        list(validation.items())[:MAX_VALIDATION], colors, strict=False
    ):
        told = f"{hover(key)} %{{y:.3g}}<extra></extra>"
        curve = _curve(series.steps, series.mean, color, 1.8, told, gaps=True)
        data.append(curve | {"name": label(key, 40)})
        ends.append(_end(series, series.mean, _short(key), color))
    best = _best(validation)
    data += _spikes(training) + broken(training) + best
    bounds = np.concatenate([everything, training.min, training.max])
    style = log_axis(everything) if logarithmic else linear_axis(bounds)
    made = layout(yaxis=style, marks=marks, summary=_told(name, training, validation))
    made["margin"] = MARGIN | {"t": max(headroom(marks), 22)}
    placed = [end | _height(end["y"], logarithmic) for end in ends if end]
    made["annotations"] += _apart(placed, everything, logarithmic)
    return {"data": data, "layout": made}


def small(
    series: SeriesLike,
    *,
    title: str = "",
    unit: str = "",
    scale: str = "linear",
    marks: Sequence[Mark] = (),
    others: Mapping[str, SeriesLike] | None = None,
    smoothing: float = 0.0,
) -> Figure:
    """A small chart of one scalar (and `others` with it): range in grey, mean as a line.

    `unit` "fraction" is shown in per cent, "s" in seconds; `scale` "log" asks for a log axis where possible.
    smoothing: see `smooth`; 0 for none.
    """
    if not len(series.steps):
        return empty("Nothing recorded.")
    shown = ":.1%" if unit == "fraction" else ":.3s" if unit == "s" else ":.3g"
    suffix = "s" if unit == "s" else ""
    data = _range(series)
    told = f"%{{y{shown}}}{suffix}<extra></extra>"
    drawn = smooth(series.mean, smoothing) if smoothing else series.mean
    data.append(_curve(series.steps, drawn, "--train", 1.5, told) | {"name": label(title, 40)})
    if np.isfinite(series.mean).sum() == 1:  # one value makes no line
        data[-1] |= {"mode": "markers", "marker": {"size": 6, "color": "--train"}}
    for (key, other), color in zip((others or {}).items(), COLORS[1:], strict=False):
        data.append(
            _curve(
                other.steps, other.mean, color, 1.5, f"{hover(key)} %{{y{shown}}}<extra></extra>"
            )
            | {"name": label(key, 40)}
        )
    data += broken(series)
    values = np.concatenate([series.mean, *(other.mean for other in (others or {}).values())])
    share = _is_share(title, values)
    logarithmic = scale == "log" and not share and wants_log(values)
    style: dict[str, Any] = log_axis(values) if logarithmic else {}
    if unit == "fraction":
        style = {"tickformat": ".0%" if _top(series) > 0.05 else ".1%", "rangemode": "tozero"}
    elif unit in AMOUNTS:
        style = {"rangemode": "tozero"}
    elif unit == "s":
        style |= {"tickformat": "~s", "ticksuffix": "s"}
    elif not style:
        bounds = np.concatenate([values, series.min, series.max])
        style = linear_axis(bounds)
    last = number(float(series.last[-1]))
    return {
        "data": data,
        "layout": layout(yaxis=style, marks=marks, summary=f"{title}: now {last}."),
    }


def smooth(values: Floats, weight: float | None = None) -> Floats:
    """Exponential average without the lag of its start; NaN stays NaN and does not spread.

    weight: share of the earlier level, 0 to 0.99. None averages over about a `SMOOTHING`th of the values, by powers
    of two, so that the line of a live run stays as it is while points come in.
    """
    if weight is None:
        weight = 1 - 1 / 2 ** int(np.log2(max(len(values) / SMOOTHING, 1.0)))
    share = 1 - weight
    result = np.full(len(values), np.nan)
    level, weight = 0.0, 0.0
    for index, value in enumerate(np.asarray(values, np.float64).tolist()):
        if isfinite(value):
            level = (1 - share) * level + share * value
            weight = (1 - share) * weight + share
            result[index] = level / weight
    return result


def _range(series: SeriesLike) -> list[dict[str, Any]]:
    common = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "type": "scatter"}
    x = array(series.steps)
    if np.array_equal(series.min, series.max, equal_nan=True):
        raw = {"type": "scatter", "mode": "lines", "x": x, "y": array(series.mean)}
        return [raw | {"line": {"width": 1, "color": "--raw"}, "hoverinfo": "skip"}]
    return [
        common | {"x": x, "y": array(series.min)},
        common | {"x": x, "y": array(series.max), "fill": "tonexty", "fillcolor": "--raw"},
    ]


def _curve(
    steps: Any, values: Floats, color: str, width: float, hover: str, *, gaps: bool = False
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": array(steps),
        "y": array(values),
        "line": {"color": color, "width": width},
        "connectgaps": gaps,
        "hovertemplate": hover,
    }


def broken(
    series: SeriesLike, name: str = "NaN or Inf", color: str = "--nan"
) -> list[dict[str, Any]]:
    """Marks at the curve's height where a bucket holds NaN or infinity."""
    steps = series.steps[np.asarray(series.nonfinite) > 0]
    if not len(steps):
        return []
    finite = series.mean[np.isfinite(series.mean)]
    height = float(finite.max()) if finite.size else 1.0
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": array(steps),
            "y": [height] * len(steps),
            "name": name,
            "marker": {"symbol": "x-thin", "size": 7, "line": {"width": 1.6, "color": color}},
            "hovertemplate": f"{name}<extra></extra>",
        }
    ]


def _spikes(series: SeriesLike) -> list[dict[str, Any]]:
    """Marks at values `SPIKE` times as far above their neighbours as is usual, and at least twice their size."""
    top = np.asarray(series.max, np.float64)
    known = np.isfinite(top) & (top > 0)
    if known.sum() < 2 * NEIGHBOURS:
        return []
    size = np.where(known, np.log(np.where(known, top, 1.0)), np.nan)
    padded = np.pad(size, NEIGHBOURS, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1)
    above = size - along(np.nanmedian, around, 1)
    spread = float(np.nanmedian(np.abs(above)))
    found = np.flatnonzero(np.nan_to_num(above) > max(SPIKE * spread, np.log(2)))
    if not len(found):
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": array(series.steps[found]),
            "y": array(top[found]),
            "name": "spike",
            "marker": {"symbol": "triangle-up", "size": 8, "color": "--high"},
            "hovertemplate": "spike to %{y:.3g}<extra></extra>",
        }
    ]


def _best(validation: Mapping[str, SeriesLike]) -> list[dict[str, Any]]:
    """A star at the lowest value of the first validation loss."""
    for series in list(validation.values())[:1]:
        if np.isfinite(series.min).any() and len(series.steps) > 2:
            at = int(np.nanargmin(series.min))
            mark = {"symbol": "star", "size": 10, "color": "--val"}
            point = {"x": [int(series.steps[at])], "y": [float(series.min[at])], "marker": mark}
            told = {"name": "best", "hovertemplate": "best %{y:.3g}<extra></extra>"}
            return [{"type": "scatter", "mode": "markers"} | point | told]
    return []


def _end(series: SeriesLike, values: Floats, text: str, color: str) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {}
    return {
        "x": 1,
        "xref": "paper",
        "xanchor": "left",
        "xshift": 4,
        "y": float(finite[-1]),
        "text": label(text, 9),
        "showarrow": False,
        "font": {"size": 12, "color": color},
    }


def _apart(ends: list[dict[str, Any]], values: Floats, logarithmic: bool) -> list[dict[str, Any]]:
    """Labels of curves' ends; those that would lie on each other are moved apart."""
    shown = (
        values[np.isfinite(values) & (values > 0)] if logarithmic else values[np.isfinite(values)]
    )
    shown = np.log10(shown) if logarithmic else shown
    span = float(np.ptp(shown)) or 1.0
    ordered = sorted(ends, key=lambda end: float(end["y"]))
    for below, above in pairwise(ordered):
        if above["y"] - below["y"] < 0.11 * span:
            below["yshift"] = below.get("yshift", 0) - 7
            above["yshift"] = 7
    return ordered


def _height(value: float, logarithmic: bool) -> dict[str, float]:
    return {"y": float(np.log10(value)) if logarithmic and value > 0 else value}


def _short(name: str) -> str:
    return name.replace("_", "/").split("/", 1)[0] or name


def _is_share(name: str, values: Floats) -> bool:
    """Whether a metric is a share of something (accuracy, recall): within [0, 1] and not a rate or a loss."""
    finite = values[np.isfinite(values)]
    small = ("loss", "lr", "rate", "error", "mse", "mae", "norm", "time", "ratio")
    within = bool(finite.size and finite.min() >= 0 and finite.max() <= 1)
    return within and not any(word in name.lower() for word in small)


def _top(series: SeriesLike) -> float:
    finite = series.max[np.isfinite(series.max)]
    return float(finite.max()) if finite.size else 0.0


def _told(name: str, training: SeriesLike, validation: Mapping[str, SeriesLike]) -> str:
    finite = training.mean[np.isfinite(training.mean)]
    if not finite.size:
        return f"{name} is NaN or infinite at every step."
    text = f"{name} went from {number(float(finite[0]))} to {number(float(finite[-1]))}"
    for key, series in list(validation.items())[:MAX_VALIDATION]:
        values = series.mean[np.isfinite(series.mean)]
        if values.size:
            text += f"; {key} is {number(float(values[-1]))}, at best {number(float(values.min()))}"
    return text + f", up to step {number(int(training.steps[-1]))}."
