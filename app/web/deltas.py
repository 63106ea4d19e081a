"""What changed in a figure since the browser drew it: points that were added instead of the figure anew.

The browser sends back the token that came with what it has. It names, for each trace, how many points there were and
a checksum of all of them and of all but the last, whose bucket may still grow. A trace whose earlier points are the
same is answered by the points from there on; the server keeps nothing.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from trainvitals.app.figures.base import array, unpacked
from trainvitals.app.figures.types import Figure

_encode = msgspec.json.Encoder(enc_hook=lambda value: value.tolist()).encode


class Tracked:
    """A figure, with what its deltas are cut out of taken apart once."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self._traces = [_Trace(trace) for trace in figure["data"]]
        self._rest = _sum(_encode(figure["layout"]))
        self.token = "_".join([*(trace.mark for trace in self._traces), self._rest])
        """What a browser has when it has the figure."""

    @property
    def whole(self) -> dict[str, Any]:
        """The figure with its token."""
        return {**self.figure, "token": self.token}

    def since(self, known: str) -> dict[str, Any] | None:
        """What turns the figure of the token `known` into this one, with its token; None where it is the same.

        "traces" holds for each trace None (the same), {"at", "x", "y"} (points from `at` on) or the trace itself;
        "layout" the layout, where it changed.
        """
        if known == self.token:
            return None
        marks = known.split("_")
        patch: dict[str, Any] = {"token": self.token}
        if len(marks) != len(self._traces) + 1:
            return patch | {"traces": self.figure["data"], "layout": self.figure["layout"]}
        if marks[-1] != self._rest:
            patch["layout"] = self.figure["layout"]
        pairs = zip(self._traces, marks[:-1], strict=True)
        patch["traces"] = [trace.tail(mark) for trace, mark in pairs]
        return patch

    def ahead(self, known: str) -> dict[str, Any] | None:
        """The newest points, put after what the figure of the token `known` has, for a page that gets the rest later.

        The page keeps that token. None where there are none.
        """
        marks = known.split("_")
        if len(marks) != len(self._traces) + 1:
            return None
        pairs = zip(self._traces, marks[:-1], strict=True)
        traces = [trace.ahead(mark) for trace, mark in pairs]
        if not any(traces):
            return None
        return {"token": known, "traces": traces, "layout": self.figure["layout"]}


class _Trace:
    """A trace; `mark` tells its number of points, checksums of its look, of all points but the last, of all points,
    and the last step."""

    def __init__(self, trace: Mapping[str, Any]) -> None:
        self._trace = trace
        self._is_curve = trace.get("type") == "scatter" and "x" in trace and "y" in trace
        if not self._is_curve:
            self.mark = f"w.{_sum(_encode(trace))}"
            return
        self._x, self._y = (
            np.ascontiguousarray(unpacked(trace[key]), np.float64) for key in ("x", "y")
        )
        look = {key: value for key, value in trace.items() if key not in ("x", "y")}
        self._look = _sum(_encode(look))
        count = len(self._x)
        sums = f"{self._look}.{self._points(count - 1)}.{self._points(count)}"
        self.mark = f"{count}.{sums}.{self._x[-1] if count else -1:.0f}"

    def tail(self, mark: str) -> Mapping[str, Any] | None:
        """What turns the trace with that mark into this one."""
        if mark == self.mark:
            return None
        count, *sums = mark.split(".")
        if not self._is_curve or not (count.isascii() and count.isdigit()):
            return self._trace
        kept = int(count) - 1
        if not 0 <= kept < len(self._x) or sums[:2] != [self._look, self._points(kept)]:
            return self._trace
        return {"at": kept, "x": array(self._x[kept:]), "y": array(self._y[kept:])}

    def ahead(self, mark: str) -> Mapping[str, Any] | None:
        """The points after the last step of the trace with that mark; None for none."""
        count, *_, last = mark.split(".")
        if not self._is_curve or not all(
            part.isascii() and part.isdigit() for part in (count, last)
        ):
            return None
        new = self._x > float(last)
        if not new.any():
            return None
        return {"at": int(count), "x": array(self._x[new]), "y": array(self._y[new])}

    def _points(self, count: int) -> str:
        """Checksum of the first `count` points, of all but the last for -1."""
        return f"{zlib.crc32(self._y[:count].data, zlib.crc32(self._x[:count].data)):x}"


def _sum(data: bytes) -> str:
    return f"{zlib.crc32(data):x}"
