"""The page of one layer: small multiples over one step axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainvitals.app.figures import bands
from trainvitals.app.figures.base import (
    array,
    empty,
    layout,
    linear_axis,
    log_axis,
    wants_log,
)
from trainvitals.app.figures.text import hover, label, number
from trainvitals.app.figures.types import Figure, Floats, Ints, Mark, SeriesLike

COLORS = ("--train", "--val", "--high", "--low", "--ok", "--val2")


def activation(row: Mapping[str, SeriesLike], marks: Sequence[Mark] = ()) -> Figure:
    """Mean ± std of a layer's output, and its largest absolute value."""
    mean, std = row.get("mean"), row.get("std")
    if mean is None or std is None or not len(mean.steps):
        return empty("No activation was recorded.")
    x = array(mean.steps)
    edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "x": x}
    data = [
        edge | {"y": array(mean.mean - std.mean)},
        edge | {"y": array(mean.mean + std.mean), "fill": "tonexty", "fillcolor": "--raw"},
        _curve(mean.steps, mean.mean, "--train", "mean"),
    ]
    top = row.get("absmax")
    if top is not None and len(top.steps):
        data.append(_curve(top.steps, top.max, "--high", "abs-max", dash="dot"))
    told = f"Activation mean {number(_last(mean))}, std {number(_last(std))}."
    shown = [mean.mean - std.mean, mean.mean + std.mean, *([] if top is None else [top.max])]
    bounds = linear_axis(_without_explosion(np.concatenate(shown)))
    made = layout(yaxis=bounds, marks=marks, summary=told)
    return {"data": data, "layout": made}


def spread(std: SeriesLike | None, marks: Sequence[Mark] = ()) -> Figure:
    """Activation std with the band around its own levels."""
    if std is None or not len(std.steps):
        return empty("No activation was recorded.")
    grown = np.where(std.mean > bands.STD_FLOOR, std.mean, np.nan)
    found = bands.levels(grown[None, :], std.steps)
    low, high = float(found.low[0]) / bands.DRIFT, float(found.high[0]) * bands.DRIFT
    band = (low, high) if np.isfinite(low) else None
    return lines({"std": std}, marks, band=band, logarithmic=True)


def shares(row: Mapping[str, SeriesLike], marks: Sequence[Mark] = ()) -> Figure:
    """Zero fraction and dead units, in per cent; the band ends where dead units become a finding."""
    named = {"zero": row.get("zero_fraction"), "dead": row.get("dead_fraction")}
    known = {key: item for key, item in named.items() if item is not None and _any(item)}
    if not known:
        return empty("This layer has no flat zero side, or was not sampled yet.")
    made = lines(known, marks, band=(0.0, bands.DEAD) if "dead" in known else None, percent=True)
    made["layout"]["yaxis"]["range"] = [-0.02, 1.02]
    return made


def update_ratio(parameters: Mapping[str, SeriesLike], marks: Sequence[Mark] = ()) -> Figure:
    """Update ratio of each parameter, log10, over the band in which healthy runs are."""
    known = {key: item for key, item in parameters.items() if _any(item)}
    if not known:
        return empty("No optimizer step changed a parameter of this layer at a sampled step.")
    return lines(known, marks, band=(7e-6, 3e-2), logarithmic=True)


def lines(
    named: Mapping[str, SeriesLike],
    marks: Sequence[Mark] = (),
    *,
    band: tuple[float, float] | None = None,
    logarithmic: bool = False,
    percent: bool = False,
) -> Figure:
    """Up to six curves in one small chart; the first has its range in grey, `band` is shaded green."""
    known = {key: item for key, item in list(named.items())[: len(COLORS)] if _any(item)}
    if not known:
        return empty("Nothing was recorded.")
    values = np.concatenate([item.mean for item in known.values()])
    finite = values[np.isfinite(values)]
    positive = bool(finite.size and finite[finite > 0].size > 0.9 * finite.size)
    log = positive and not percent and (logarithmic or wants_log(finite))
    data: list[dict[str, Any]] = []
    for index, (key, item) in enumerate(known.items()):
        if index == 0 and not np.array_equal(item.min, item.max, equal_nan=True):
            edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
            data.append(edge | {"x": array(item.steps), "y": array(item.min)})
            data.append(edge | {"x": array(item.steps), "y": array(item.max), "fill": "tonexty"})
            data[-1]["fillcolor"] = "--raw"
        shown = ":.1%" if percent else ":.3g"
        data.append(_curve(item.steps, item.mean, COLORS[index], key, shown=shown))
    reach = _range(finite[finite > 0], band) if log and band else []
    style: dict[str, Any] = (
        log_axis(np.append(finite, np.power(10.0, reach))) if log else linear_axis(values)
    )
    if percent:
        style = {"tickformat": ".0%"}
    told = "; ".join(f"{key} {number(_last(item))}" for key, item in known.items())
    made = layout(yaxis=style, marks=marks, summary=f"Now {told}.")
    if band is not None:
        made["shapes"].insert(0, _shade(band))
        if log:
            made["yaxis"]["range"] = reach
    if len(known) > 1:
        made["meta"]["keys"] = [
            {"name": key, "color": color} for key, color in zip(known, COLORS, strict=False)
        ]
    return {"data": data, "layout": made}


def _curve(
    steps: Ints, values: Floats, color: str, name: str, *, dash: str = "solid", shown: str = ":.3g"
) -> dict[str, Any]:
    text = label(name)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": array(steps),
        "y": array(values),
        "name": text,
        "line": {"color": color, "width": 1.5, "dash": dash},
        "hovertemplate": f"{hover(name)} %{{y{shown}}}<extra></extra>",
    }


def _shade(band: tuple[float, float]) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": band[0],
        "y1": band[1],
        "fillcolor": "--band",
        "line": {"width": 0},
        "layer": "below",
    }


def _without_explosion(values: Floats) -> Floats:
    """The values that an axis is made for: without those far off the usual ones, where the curves leave the chart."""
    finite = values[np.isfinite(values)]
    usual = float(np.median(np.abs(finite))) if finite.size else 0.0
    return finite[np.abs(finite) < 1e3 * usual] if usual > 0 else finite


def _range(values: Floats, band: tuple[float, float]) -> list[float]:
    """Exponents that show the values and at least some of the band."""
    low, high = float(np.log10(values.min())), float(np.log10(values.max()))
    edges = np.log10(band)
    return [min(low - 0.3, max(edges[0], low - 1.5)), max(high + 0.3, min(edges[1], high + 1.5))]


def _last(series: SeriesLike) -> float:
    finite = series.mean[np.isfinite(series.mean)]
    return float(finite[-1]) if finite.size else float("nan")


def _any(series: SeriesLike) -> bool:
    return bool(len(series.steps) and np.isfinite(series.mean).any())
