"""Event lines of charts over the steps, and where their labels stand: above the chart, never on each other."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from trainvitals.app.figures.text import label
from trainvitals.app.figures.types import Mark

MAX_MARKS: Final = 12
"""Event lines in one chart; further ones would hide the data."""
ROWS: Final = 3
"""Of labels above a chart."""
ROW: Final = 13
"""Height of a row, pixels."""
LENGTH: Final = 30
"""Characters of a label."""
CHARACTER: Final = 0.0125
"""Of a label, as a share of the width: 5.7 pixels of the narrowest axis that has more than numbers at its lines, 460
pixels (`static/js/painter.js`)."""
APART: Final = 2
"""Characters between two labels."""

_NUMBERS = re.compile(r"\d+(, \d+)*")


class _Placed(msgspec.Struct):
    mark: Mark
    extent: tuple[float, float]
    row: int
    """From above."""


def stacked(marks: Sequence[Mark], first: int, last: int) -> list[Mark]:
    """`marks`, the most important first, with labels that have room on an axis from step `first` to `last`.

    Labels that would lie on each other stand in rows, the earlier mark's above the later one's. Every finding keeps its
    number as far as there is room, then the first ones their whole label; of many that begin at one step the last
    have their numbers in one label. What has no room is a line alone.
    """
    whole = _gathered(marks[:MAX_MARKS])
    chosen = [msgspec.structs.replace(mark, label=_numbers(mark)) for mark in whole]
    placed, left = _packed(chosen, first, last)
    for index, mark in enumerate(whole):
        longer = [*chosen[:index], mark, *chosen[index + 1 :]]
        tried, out = _packed(longer, first, last)
        if sum(bool(mark.label) for mark in out) <= sum(bool(mark.label) for mark in left):
            chosen, placed, left = longer, tried, out
    return [*_lowered(placed), *unlabelled(left)]


def _gathered(marks: Sequence[Mark]) -> list[Mark]:
    """Marks of one step, of which those that have no row of their own give their numbers to the last that has one."""
    steps: dict[int, list[Mark]] = {}
    for mark in marks:
        steps.setdefault(mark.step, []).append(mark)
    gathered = []
    for mark in marks:
        together = steps[mark.step]
        place = together.index(mark)
        if len(together) <= ROWS or place < ROWS - 1:
            gathered.append(mark)
        elif place == ROWS - 1:
            numbers = filter(None, map(_numbers, together[place:]))
            gathered.append(msgspec.structs.replace(mark, label=", ".join(numbers)))
    return gathered


def _packed(marks: Sequence[Mark], first: int, last: int) -> tuple[list[_Placed], list[Mark]]:
    """The marks whose labels have room, each in the highest free row, and the others."""
    placed: list[_Placed] = []
    left: list[Mark] = []
    for mark in marks:
        side, extent = _extent(mark, first, last)
        taken = {other.row for other in placed if _touch(extent, other.extent)}
        row = next((row for row in range(ROWS) if row not in taken), None)
        if row is None or not mark.label:
            left.append(mark)
        else:
            placed.append(_Placed(msgspec.structs.replace(mark, anchor=side), extent, row))
    return placed, left


def _extent(mark: Mark, first: int, last: int) -> tuple[str, tuple[float, float]]:
    """Which end of a label is at its line, and from where to where it reaches, as shares of the axis."""
    at = (mark.step - first) / max(last - first, 1)
    width = CHARACTER * (min(len(mark.label), LENGTH) + APART)
    if at < width / 2:
        return "left", (at, at + width)
    if at > 1 - width / 2:
        return "right", (at - width, at)
    return "center", (at - width / 2, at + width / 2)


def _lowered(placed: Sequence[_Placed]) -> list[Mark]:
    """The marks, in their order, with labels as close above the chart as those below them allow."""
    rows: dict[int, int] = {}
    for index in sorted(range(len(placed)), key=lambda index: -placed[index].row):
        below = [rows[k] for k in rows if _touch(placed[k].extent, placed[index].extent)]
        rows[index] = max(below, default=-1) + 1
    return [
        msgspec.structs.replace(item.mark, row=rows[index]) for index, item in enumerate(placed)
    ]


def _touch(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _numbers(mark: Mark) -> str:
    """The number of a finding, which its label begins with; "" of anything else."""
    found = _NUMBERS.match(mark.label)
    return found[0] if found else ""


def unlabelled(marks: Iterable[Mark]) -> list[Mark]:
    """The lines of `marks` alone."""
    return [Mark(mark.step, "", mark.color) for mark in marks]


def line(mark: Mark) -> dict[str, Any]:
    """The vertical line of an event."""
    return {
        "type": "line",
        "x0": mark.step,
        "x1": mark.step,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": mark.color, "width": 1.3, "dash": "dot"},
    }


def labels(marks: Iterable[Mark]) -> list[dict[str, Any]]:
    """The labels of marks as Plotly's annotations."""
    return [
        {
            "x": mark.step,
            "y": 1,
            "yref": "paper",
            "yshift": ROW * mark.row,
            "text": label(mark.label, LENGTH),
            "showarrow": False,
            "xanchor": mark.anchor,
            "yanchor": "bottom",
            "font": {"size": 11, "color": mark.color},
        }
        for mark in marks
        if mark.label
    ]


def headroom(marks: Iterable[Mark]) -> int:
    """Pixels above a chart that the labels of its marks need."""
    return max((22 + ROW * mark.row for mark in marks if mark.label), default=8)
