"""What all charts share: axes, event lines, packed arrays."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainvitals.app.figures.marks import MAX_MARKS, headroom, labels, line
from trainvitals.app.figures.text import label
from trainvitals.app.figures.types import Figure, Floats, Mark

PACK_FROM = 200
"""Values from which an array travels as base64 of its bytes instead of as a list."""

MARGIN = {"l": 128, "r": 52, "t": 6, "b": 24}
"""Of the loss and the map, so that their step axes lie above each other, pixels."""

LEVELS = 1 << 14
"""Values that float32 has to tell apart between the lowest and the highest of an array: more than any screen does."""

_TYPES = {"float32": "f4", "float64": "f8", "int32": "i4", "int8": "i1", "uint8": "u1"}


def array(values: npt.NDArray[Any]) -> list[Any] | dict[str, str]:
    """`values` (any shape) as Plotly takes it: a list, or typed bytes where it is large.

    NaN and infinity become null in a list. Typed bytes keep NaN, which Plotly reads as missing; infinity is
    made NaN. Typed bytes are of 32 bits where that is as good in a picture and in a read-out of three digits.
    """
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, np.nan).astype(values.dtype, copy=False)
    if values.size < PACK_FROM:
        nested: list[Any] = _with_nulls(values.tolist())
        return nested
    values = _narrowed(values)
    packed = {"dtype": _TYPES[values.dtype.name], "bdata": _base64(values)}
    if values.ndim > 1:
        packed["shape"] = ", ".join(str(size) for size in values.shape)
    return packed


def _narrowed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`values` in half the bytes where nobody can see it."""
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        fits = np.abs(values).max() < 1 << 31
        return values.astype(np.int32 if fits else np.float64)  # float64: exact up to 2^53
    if values.dtype == np.float64:
        size = np.abs(values[np.isfinite(values) & (values != 0)])
        span = np.ptp(values[np.isfinite(values)]) if len(size) else 0.0
        limits = np.finfo(np.float32)
        if not len(size) or (
            limits.tiny <= size.min()
            and size.max() <= limits.max
            and (span == 0 or span >= LEVELS * np.spacing(np.float32(size.max())))
        ):
            return values.astype(np.float32)
    return values


def unpacked(value: list[Any] | dict[str, str]) -> npt.NDArray[Any]:
    """The values of `array`, missing ones as NaN."""
    if isinstance(value, list):
        return np.array(value, np.float64)
    flat = np.frombuffer(base64.b64decode(value["bdata"]), f"<{value['dtype']}")
    return (
        flat.reshape([int(size) for size in value["shape"].split(",")])
        if "shape" in value
        else flat
    )


def _base64(values: npt.NDArray[Any]) -> str:
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode()


def _with_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def axis(**more: Any) -> dict[str, Any]:
    """An axis in the quiet style of all charts."""
    style = {
        "gridcolor": "--grid",
        "linecolor": "--line",
        "tickcolor": "--line",
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 3,
        "tickfont": {"size": 11, "color": "--muted"},
    }
    return style | more


def layout(
    *,
    yaxis: dict[str, Any] | None = None,
    marks: Sequence[Mark] = (),
    summary: str = "",
    **more: Any,
) -> dict[str, Any]:
    """A chart's layout over a step axis. A mark without a label is only a line.

    `summary` is the chart in words, for those who can't see it.
    """
    meta = {"summary": summary} | more.pop("meta", {})
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "--text"},
        "showlegend": False,
        "dragmode": "zoom",
        "hovermode": "x",
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"color": "--text"}},
        "margin": {"l": 52, "r": 14, "t": headroom(marks), "b": 24},
        "xaxis": axis(showgrid=False, tickformat=",d", nticks=7),
        "yaxis": axis(fixedrange=True, nticks=5, automargin="left") | (yaxis or {}),
        "shapes": [line(mark) for mark in marks[:MAX_MARKS]],
        "annotations": labels(marks[:MAX_MARKS]),
        "meta": meta,
    } | more


def wants_log(values: Floats) -> bool:
    """Whether a log axis tells more: all positive, over a decade from 2 % to 98 %, or single ones far above."""
    finite = values[np.isfinite(values)]
    if finite.size < 3 or finite.min() <= 0:
        return False
    low, high = np.quantile(finite, [0.02, 0.98])
    return bool(high > 10 * low or finite.max() > 1e3 * np.median(finite))


def linear_axis(values: Floats) -> dict[str, Any]:
    """A linear axis with at most five ticks at round places, labelled in one short format.

    A constant gets a range around its value; the browser's own would be a unit wide.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return {}
    low, high = float(finite.min()), float(finite.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        around = [low - (0.5 * abs(low) or 1.0), low, low + (0.5 * abs(low) or 1.0)]
        return {
            "range": [around[0], around[-1]],
            "tickvals": around,
            "ticktext": [tick(value) for value in around],
        }
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    if not np.isfinite(high - low):
        return {"exponentformat": "e"}
    step = 10.0 ** np.floor(np.log10((high - low) / 3))
    step = next(size * step for size in (1, 2, 5, 10) if (high - low) / (size * step) <= 5)
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    ticks = [float(f"{index * step:.12g}") for index in range(first, last + 1)]
    return {"range": [low, high], "tickvals": ticks, "ticktext": [tick(value) for value in ticks]}


def tick(value: float) -> str:
    """A number at an axis, as short as it can be: "0.05", "40k", "2e6", "1e18"."""
    size = abs(value)
    if 1e4 <= size < 1e6:
        return f"{value / 1e3:.4g}k".replace("-", "−")
    text = f"{value:.4g}" if 1e-3 <= size < 1e4 or not size else f"{value:.4e}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def log_axis(values: Floats) -> dict[str, Any]:
    """A log axis with few, readable ticks around the positive ones of `values`."""
    some = values[np.isfinite(values) & (values > 0)]
    if not some.size:
        return {"type": "log"}
    low, high = int(np.floor(np.log10(some.min()))) - 2, int(np.ceil(np.log10(some.max()))) + 2
    span = high - low - 4
    powers = range(low, high + 1, max(1, -(-span // 5)))
    digits = (1, 2, 5) if span <= 2 else (1,)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [tick(value) for value in ticks]}


def empty(message: str) -> Figure:
    """A chart that says why it is empty."""
    note = {"text": label(message, 120), "showarrow": False, "xref": "paper", "yref": "paper"}
    hidden = {"visible": False}
    made = layout(summary=message, yaxis=hidden, annotations=[note | {"x": 0.5, "y": 0.5}])
    made["xaxis"] = hidden
    return {"data": [], "layout": made}
