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
import numpy.typing as npt

from trainvitals.app.figures.base import array, unpacked
from trainvitals.app.figures.types import Figure

_encode = msgspec.json.Encoder(enc_hook=lambda value: value.tolist()).encode


def token(figure: Figure) -> str:
    """What a browser has when it has `figure`."""
    return "_".join([*(_mark(trace) for trace in figure["data"]), _rest(figure)])


def since(figure: Figure, known: str) -> dict[str, Any] | None:
    """What turns the figure of token `known` into `figure`, with its new token; None where it is the same.

    "traces" holds for each trace None (the same), {"at", "x", "y"} (points from `at` on) or the trace itself;
    "layout" the layout, where it changed.
    """
    now = token(figure)
    if now == known:
        return None
    marks = known.split("_")
    patch: dict[str, Any] = {"token": now}
    if len(marks) != len(figure["data"]) + 1:
        return patch | {"traces": figure["data"], "layout": figure["layout"]}
    if marks[-1] != _rest(figure):
        patch["layout"] = figure["layout"]
    pairs = zip(figure["data"], marks[:-1], strict=True)
    patch["traces"] = [_tail(trace, mark) for trace, mark in pairs]
    return patch


def _tail(trace: Mapping[str, Any], mark: str) -> Mapping[str, Any] | None:
    if _mark(trace) == mark:
        return None
    count = mark.split(".")[0]
    if not (count.isascii() and count.isdigit()) or not _is_curve(trace):
        return trace
    x, y = unpacked(trace["x"]), unpacked(trace["y"])
    kept = int(count) - 1
    if (
        kept < 0
        or kept >= len(x)
        or _mark(trace, int(count)).split(".")[1:3] != mark.split(".")[1:3]
    ):
        return trace
    return {"at": kept, "x": array(x[kept:]), "y": array(y[kept:])}


def _mark(trace: Mapping[str, Any], count: int | None = None) -> str:
    """Number of points, checksums of the look, of all but the last point and of all points; of the first `count`."""
    if not _is_curve(trace):
        return f"w.{_sum(_encode(trace))}"
    x, y = unpacked(trace["x"])[:count], unpacked(trace["y"])[:count]
    look = _encode({key: value for key, value in trace.items() if key not in ("x", "y")})
    return f"{len(x)}.{_sum(look)}.{_points(x[:-1], y[:-1])}.{_points(x, y)}"


def _is_curve(trace: Mapping[str, Any]) -> bool:
    return trace.get("type") == "scatter" and "x" in trace and "y" in trace


def _rest(figure: Figure) -> str:
    return _sum(_encode(figure["layout"]))


def _points(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> str:
    return _sum(x.astype(np.float64).tobytes() + y.astype(np.float64).tobytes())


def _sum(data: bytes) -> str:
    return f"{zlib.crc32(data):x}"
