"""Tiny curves inside findings and tables, as the path data of an inline SVG."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

WIDTH = 120
HEIGHT = 28
_PAD = 2.0


class Spark(msgspec.Struct, frozen=True):
    """Path data in a `WIDTH` x `HEIGHT` box, the band as (top, height), x positions of non-finite values."""

    path: str
    band: tuple[float, float] | None = None
    broken: list[float] = []
    last: tuple[float, float] | None = None


def spark(
    values: Sequence[Any], *, steps: Sequence[Any] = (), band: Sequence[Any] = ()
) -> Spark | None:
    """The curve of `values` (numbers, None, or "nan", "inf", "-inf"), over `steps` when they are given.

    None without two finite values or broken ones. `band` is (low, high), either may be None for open. The
    scale is logarithmic when the values are positive and span over two decades.
    """
    numbers = [_number(value) for value in values]
    places = [_number(step) for step in steps] if len(steps) == len(numbers) else []
    if not places or not all(math.isfinite(place) for place in places):
        places = [float(index) for index in range(len(numbers))]
    finite = [value for value in numbers if math.isfinite(value)]
    if len(finite) < 2:
        return None
    logarithmic = min(finite) > 0 and max(finite) > 100 * min(finite)
    low, high = _scaled(min(finite), logarithmic), _scaled(max(finite), logarithmic)
    span, width = (high - low) or 1.0, (places[-1] - places[0]) or 1.0

    def x(place: float) -> float:
        return round(1 + (place - places[0]) / width * (WIDTH - 4), 1)

    def y(value: float) -> float:
        share = (_scaled(value, logarithmic) - low) / span
        return round(HEIGHT - _PAD - min(max(share, 0.0), 1.0) * (HEIGHT - 2 * _PAD), 1)

    parts, broken, pen = [], [], "M"
    last = None
    for place, value in zip(places, numbers, strict=True):
        if math.isfinite(value):
            last = (x(place), y(value))
            parts.append(f"{pen}{last[0]} {last[1]}")
            pen = "L"
        else:
            broken.append(x(place))
            pen = "M"
    return Spark("".join(parts), _band(band, y), broken[:60], last)


def _band(band: Sequence[Any], y: Any) -> tuple[float, float] | None:
    if len(band) != 2:
        return None
    low, high = (_number(edge) for edge in band)
    top = y(high) if math.isfinite(high) else 0.0
    bottom = y(low) if math.isfinite(low) else float(HEIGHT)
    return (top, max(round(bottom - top, 1), 1.0))


def _scaled(value: float, logarithmic: bool) -> float:
    return math.log10(max(value, 1e-300)) if logarithmic else value


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
