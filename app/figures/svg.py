"""Figures as static SVG, for a report that opens anywhere without a script. Colours are the style sheet's own.

It draws what `app/figures` makes: bands, lines and marks over a step axis, and the vitals map.
"""

import base64
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from trainvitals.app.figures import judged
from trainvitals.app.figures.base import linear_axis, tick
from trainvitals.app.figures.text import number, percent, seconds, shorten
from trainvitals.app.figures.types import Figure, Floats

LEFT, RIGHT, TOP, BOTTOM = 64, 60, 20, 22
MAX_ROWS = 120
"""Rows of the map; of a larger model the sickest are drawn."""
ROW_NAMES = 40
"""Rows up to which each has its name."""

_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&#123;", "{"), ("&amp;", "&"))
_SIDES = {"left": "", "center": "mid", "right": "end"}
_KINDS = {"f4": "<f4", "f8": "<f8", "i1": "i1", "u1": "u1", "i4": "<i4"}
_LEVELS = (
    (-judged.FULL, -64, "--low"),
    (-63, -26, "--low1"),
    (-25, 25, "--mid"),
    (26, 63, "--high1"),
    (64, judged.FULL, "--high"),
)
"""Codes of the map from, to, and the colour of the style sheet."""


def chart(figure: Figure, width: int = 720, height: int = 200) -> Markup:
    """A chart over the steps as one `<svg>`; the figure's summary is its text for those who can't see it."""
    traces = [trace for trace in figure["data"] if trace["type"] == "scatter"]
    told = str(figure["layout"]["meta"].get("summary", ""))
    if not traces:
        return _svg(width, 40, told, f'<text x="{width / 2}" y="24">{escape(told)}</text>')
    xs = [_values(trace["x"]) for trace in traces]
    ys = [_values(trace["y"]) for trace in traces]
    axis = figure["layout"]["yaxis"]
    place = _Place(figure["layout"], xs, ys, width, height)
    parts: list[str] = [_grid(axis, place, ys), _steps(place)]
    for shape in figure["layout"].get("shapes", []):
        parts.append(_shape(shape, place))
    for index, (trace, x, y) in enumerate(zip(traces, xs, ys, strict=True)):
        if trace.get("fill") == "tonexty" and index:
            parts.append(_band(trace, place, x, ys[index - 1], y))
        elif trace["mode"] == "markers":
            marker = trace["marker"]
            draw = _cross if marker.get("symbol") == "x-thin" else _dot
            color = marker.get("color") or marker["line"]["color"]
            parts += [draw(place, *at, color) for at in zip(x[:200], y[:200], strict=True)]
        elif trace["line"].get("width"):
            line = trace["line"]
            stroke = f'stroke="var({line["color"]})" stroke-width="{line["width"]}"'
            parts.append(f'<path d="{_path(place, x, y)}" fill="none" {stroke}/>')
    notes = figure["layout"].get("annotations", [])
    parts += [_note(note, place) for note in notes]
    return _svg(width, height, told, "".join(parts))


def vitals(picture: judged.Picture, width: int = 720) -> Markup:
    """The vitals map as one `<svg>`: a rectangle for each run of equal cells, the sickest rows of a large model."""
    codes = picture.codes
    rows: Sequence[int] = range(len(picture.lines))
    if len(picture.lines) > MAX_ROWS:
        size = np.where(np.abs(codes) <= judged.FULL, np.abs(codes.astype(int)), 0)
        size = size + np.where(codes >= judged.GRADIENT_NONFINITE, 300, 0)
        rows = sorted(np.argsort(-size.sum(axis=1), kind="stable")[:MAX_ROWS].tolist())
    tall = 14 if len(rows) <= ROW_NAMES else 5
    left, height = 150, len(rows) * tall + BOTTOM + 4
    edges = picture.edges.astype(float)
    scale = (width - left - 10) / max(edges[-1] - edges[0], 1.0)
    at = left + (edges - edges[0]) * scale
    parts = [
        f'<rect x="{left}" y="2" width="{width - left - 10}" height="{len(rows) * tall}" fill="var(--unseen)"/>'
    ]
    for color, low, high in _layers(picture.shares):
        path = "".join(
            _runs((codes[row] >= low) & (codes[row] <= high), at, 2 + index * tall, tall)
            for index, row in enumerate(rows)
        )
        parts.append(f'<path d="{path}" fill="var({color})"/>' if path else "")
    every = 1 if len(rows) <= ROW_NAMES else max(1, len(rows) // 24)
    for index, row in list(enumerate(rows))[::every]:
        name = escape(shorten(_shown(picture.lines[row].name or "(root)"), 24))
        y = 2 + (index + 0.5) * tall + 4
        parts.append(f'<text x="{left - 6}" y="{y:.1f}" class="end">{name}</text>')
    for step in _round_steps(edges[0], edges[-1]):
        x = left + (step - edges[0]) * scale
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" class="mid">{number(int(step))}</text>')
    return _svg(width, height, picture.summary, "".join(parts))


class _Place:
    """Where values are in the box."""

    def __init__(
        self, layout: dict[str, Any], xs: list[Floats], ys: list[Floats], width: int, height: int
    ) -> None:
        self.width, self.height = width, height
        self.bottom = height - BOTTOM
        self.top: int = max(TOP, layout["margin"]["t"])
        every_x = np.concatenate(xs)
        low, high = layout["xaxis"].get("range") or (every_x.min(), every_x.max())
        self.x0, self.x1 = float(low), float(max(high, low + 1))
        self.logarithmic = layout["yaxis"].get("type") == "log"
        values = np.concatenate(ys)
        values = values[np.isfinite(values) & ((values > 0) | (not self.logarithmic))]
        if "range" in layout["yaxis"]:
            self.y0, self.y1 = (float(edge) for edge in layout["yaxis"]["range"])
        elif not len(values):
            self.y0, self.y1 = 0.0, 1.0
        else:
            shown = np.log10(values) if self.logarithmic else values
            bottom = 0.0 if layout["yaxis"].get("rangemode") == "tozero" else float(shown.min())
            pad = 0.05 * (float(shown.max()) - bottom) or 0.5
            self.y0, self.y1 = bottom - (pad if bottom else 0.0), float(shown.max()) + pad

    def x(self, step: float) -> float:
        share = (step - self.x0) / (self.x1 - self.x0)
        return round(LEFT + share * (self.width - LEFT - RIGHT), 1)

    def y(self, value: float) -> float | None:
        if not math.isfinite(value) or (self.logarithmic and value <= 0):
            return None
        shown = math.log10(value) if self.logarithmic else value
        share = min(max((shown - self.y0) / ((self.y1 - self.y0) or 1.0), -0.02), 1.02)
        return round(self.bottom - share * (self.bottom - self.top), 1)


def _values(array: Any) -> Floats:
    """An array of a figure, a list or typed bytes, as float64; shape (n,)."""
    if isinstance(array, dict):
        raw = np.frombuffer(base64.b64decode(array["bdata"]), _KINDS[array["dtype"]])
        return raw.astype(np.float64)
    return np.array([math.nan if value is None else value for value in array], np.float64)


def _path(place: _Place, x: Floats, y: Floats) -> str:
    parts, pen = [], "M"
    for step, value in zip(x, y, strict=True):
        at = place.y(float(value))
        if at is None:
            pen = "M"
            continue
        parts.append(f"{pen}{place.x(float(step))} {at}")
        pen = "L"
    return "".join(parts)


def _band(trace: dict[str, Any], place: _Place, x: Floats, low: Floats, high: Floats) -> str:
    both = [
        (place.x(float(step)), place.y(float(b)), place.y(float(t)))
        for step, b, t in zip(x, low, high, strict=True)
    ]
    pieces = [
        f"M{at} {bottom}V{top}"
        for at, bottom, top in both
        if bottom is not None and top is not None
    ]
    return f'<path d="{"".join(pieces)}" stroke="var({trace["fillcolor"]})" stroke-width="1.4"/>'


def _cross(place: _Place, step: float, value: float, _color: str) -> str:
    """The mark of a NaN or infinity."""
    at, y = place.x(float(step)), place.y(float(value)) or place.top
    return f'<path d="M{at - 3} {y - 3}l6 6m0 -6l-6 6" stroke="var(--nan)" stroke-width="1.5"/>'


def _dot(place: _Place, step: float, value: float, color: str) -> str:
    at, y = place.x(float(step)), place.y(float(value)) or place.top
    return f'<circle cx="{at}" cy="{y}" r="3.5" fill="var({color})"/>'


def _grid(axis: dict[str, Any], place: _Place, ys: list[Floats]) -> str:
    if "tickvals" not in axis:
        axis = axis | linear_axis(np.array([place.y0, place.y1]))
    texts = axis.get("ticktext") or [tick(value) for value in axis["tickvals"]]
    share = str(axis.get("tickformat", "")).endswith("%")
    time = axis.get("ticksuffix") == "s"
    parts = []
    for value, text in zip(axis["tickvals"], texts, strict=True):
        at = place.y(float(value))
        if at is None or not place.top - 2 <= at <= place.bottom + 1:
            continue
        shown = percent(value) if share else seconds(value) if time else text
        parts.append(
            f'<path d="M{LEFT} {at}H{place.width - RIGHT}" stroke="var(--grid)"/>'
            f'<text x="{LEFT - 6}" y="{at + 4}" class="end">{escape(shown)}</text>'
        )
    return "".join(parts)


def _steps(place: _Place) -> str:
    return "".join(
        f'<text x="{place.x(step)}" y="{place.height - 5}" class="mid">{number(int(step))}</text>'
        for step in _round_steps(place.x0, place.x1)
    )


def _round_steps(low: float, high: float) -> list[float]:
    size = 10.0 ** math.floor(math.log10(max(high - low, 1) / 4))
    size = next(size * by for by in (1, 2, 5, 10) if (high - low) / (size * by) <= 7)
    first = math.ceil(low / max(size, 1))
    return [step * max(size, 1) for step in range(first, int(high // max(size, 1)) + 1)]


def _shape(shape: dict[str, Any], place: _Place) -> str:
    if shape["type"] != "line" or shape.get("xref") == "paper":
        return ""
    x = place.x(float(shape["x0"]))
    if not LEFT - 1 <= x <= place.width - RIGHT + 1:
        return ""
    color = shape["line"]["color"]
    return (
        f'<path d="M{x} {place.top}V{place.bottom}" stroke="var({color})" stroke-dasharray="2 3"/>'
    )


def _note(note: dict[str, Any], place: _Place) -> str:
    text = escape(_plain(str(note["text"])))
    color = note.get("font", {}).get("color", "--muted")
    if note.get("xref") == "paper":  # the end of a curve
        shown = note["y"]
        share = (shown - place.y0) / ((place.y1 - place.y0) or 1.0)
        y = place.bottom - share * (place.bottom - place.top) - note.get("yshift", 0) + 4
        return f'<text x="{place.width - RIGHT + 4}" y="{y:.1f}" fill="var({color})">{text}</text>'
    x = place.x(float(note["x"]))
    y = place.top - 7 - note.get("yshift", 0)
    side = _SIDES[note["xanchor"]]
    return f'<text x="{x}" y="{y}" class="{side}" fill="var({color})">{text}</text>'


def _layers(shares: bool) -> Iterable[tuple[str, int, int]]:
    """Colour, lowest and highest code of what is drawn, the healthy first."""
    if shares:
        yield from (("--mid", 0, 33), ("--low1", 34, 66), ("--deep", 67, judged.FULL))
    else:
        yield from ((color, low, high) for low, high, color in _LEVELS)
    yield ("--line", judged.FROZEN, judged.FROZEN)
    yield ("--nan", judged.GRADIENT_NONFINITE, judged.NONFINITE)


def _runs(flags: Any, at: Floats, y: float, height: float) -> str:
    """Path data of a rectangle for each run of set flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return "".join(
        f"M{at[first]:.1f} {y}H{max(at[last], at[first] + 0.7):.1f}v{height - 0.5}H{at[first]:.1f}z"
        for first, last in zip(edges[::2], edges[1::2], strict=True)
    )


def _plain(text: str) -> str:
    """A label of `text.label` as the characters it stands for."""
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else " " for c in name)


def standalone(drawn: Markup, style: str) -> str:
    """A drawing as a file of its own; `style` declares the colours."""
    head, _, rest = str(drawn).partition(">")
    return f'<?xml version="1.0" encoding="UTF-8"?>{head}><style>{style}</style>{rest}'


def _svg(width: int, height: int, told: str, inner: str) -> Markup:
    return Markup(
        '<svg class="static" viewBox="0 0 {} {}" role="img" aria-label="{}" '
        'xmlns="http://www.w3.org/2000/svg">{}</svg>'
    ).format(width, height, _shown(told), Markup(inner))
