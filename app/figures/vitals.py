"""The vitals map: every layer over every step, coloured by how far it is from healthy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainvitals.app.figures import bands
from trainvitals.app.figures.base import MARGIN, array, empty, layout
from trainvitals.app.figures.cells import Cells, Line
from trainvitals.app.figures.text import label, number
from trainvitals.app.figures.types import Figure, Flags, Floats, Ints, Mark

ALL_LABELS = 34
"""Rows up to which each has its name on the axis; above it, each block has."""

JUDGED = ("update_ratio", "std", "dead_fraction", "grad_rms")
"""Statistics with a healthy band; the first tab shows the worst of them."""
TITLES = {
    "update_ratio": "update ratio",
    "std": "activation std",
    "dead_fraction": "dead units",
    "grad_rms": "gradient RMS",
    "zero_fraction": "zero fraction",
}

DIVERGING = [[0, "--low"], [0.36, "--low1"], [0.5, "--mid"], [0.64, "--high1"], [1, "--high"]]
SEQUENTIAL = [[0, "--mid"], [1, "--deep"]]


def vitals(
    lines: Sequence[Line],
    cells: Mapping[str, Cells],
    broken: Flags,
    *,
    stop: int,
    marks: Sequence[Mark] = (),
    names: Sequence[str] = (),
    levels: Mapping[str, bands.Levels] | None = None,
) -> Figure:
    """The map over `cells` (statistic -> values on one grid); several statistics: the worst of each cell.

    broken: `(rows, buckets)`, where NaN or infinity was counted. stop: first step after the last bucket.
    names: layers that findings speak of; they stay legible. levels: by statistic, those of the whole run where
    `cells` are only a part of it.
    """
    if not lines or not cells or not len(next(iter(cells.values())).steps):
        return empty("No layer was measured yet. The first sample comes within a few steps.")
    steps = next(iter(cells.values())).steps
    if set(cells) == {"zero_fraction"}:
        score = cells["zero_fraction"].mean
        which = np.zeros(score.shape, np.int8)
        colors = {"colorscale": SEQUENTIAL, "zmin": 0, "zmax": 1}
    else:
        loose = at_output(lines)
        known = levels or {}
        score, which = worst(
            {key: _score(key, value, known.get(key), loose) for key, value in cells.items()}
        )
        colors = {"colorscale": DIVERGING, "zmin": -bands.FULL, "zmax": bands.FULL}
    edges = np.append(steps, max(stop, int(steps[-1]) + 1))
    heat: dict[str, Any] = {"type": "heatmap", "x": array(edges), "showscale": False}
    heat |= {"hoverinfo": "none", "y0": 0, "dy": 1}
    data = [heat | colors | {"z": array(score.astype(np.float32))}]
    if broken.any():
        flags = np.where(broken, 1.0, np.nan).astype(np.float32)
        solid = {"colorscale": [[0, "--nan"], [1, "--nan"]], "zmin": 0, "zmax": 1}
        data.append(heat | solid | {"z": array(flags)})
    order = _severity(score, broken)
    made = layout(
        yaxis=rows_axis(lines, order, names),
        marks=marks,
        summary=_told(lines, score, broken, steps),
        hovermode="closest",
        meta=_meta(lines, cells, which, broken, steps),
    )
    made["plot_bgcolor"] = "--unseen"
    made["xaxis"]["range"] = [int(edges[0]), int(edges[-1])]
    made["margin"] = dict(MARGIN)
    return {"data": data, "layout": made}


def at_output(lines: Sequence[Line]) -> Flags:
    """Which rows make the output, shape `(rows,)`: the last layer with weights, and what comes after it."""
    last = max((index for index, line in enumerate(lines) if line.weights), default=len(lines))
    return np.arange(len(lines)) >= last


def _score(key: str, cells: Cells, known: bands.Levels | None, loose: Flags) -> Floats:
    match key:
        case "update_ratio":
            return bands.update_ratio(cells)
        case "std":
            return bands.activation_std(cells, known, loose)
        case "dead_fraction":
            return bands.dead_units(cells)
        case _:
            return bands.gradient_rms(cells, known)


def worst(scores: Mapping[str, Floats]) -> tuple[Floats, np.ndarray[Any, Any]]:
    """The score farthest from 0 in each cell, and the index of the statistic that has it (int8)."""
    stack = np.stack(list(scores.values()))
    size = np.where(np.isnan(stack), -1.0, np.abs(stack))
    which = size.argmax(axis=0)
    return np.take_along_axis(stack, which[None], axis=0)[0], which.astype(np.int8)


def _severity(score: Floats, broken: Flags) -> Ints:
    """Row indices, the sickest first; healthy rows left out."""
    far = np.abs(np.nan_to_num(score))
    ill = np.where(far >= bands.EDGE, far, 0.0).sum(axis=1) + 3.0 * broken.sum(axis=1)
    return np.array([index for index in np.argsort(-ill, kind="stable") if ill[index] > 0], int)


def rows_axis(lines: Sequence[Line], order: Ints, names: Sequence[str]) -> dict[str, Any]:
    """The axis of the layers: the sickest (`order`) and those of `names` stay legible."""
    count = len(lines)
    if count <= ALL_LABELS:
        ticks = dict.fromkeys(range(count))
    else:
        ticks = dict.fromkeys(_block_middles(lines))
    told = {index for index, line in enumerate(lines) if line.name in names}
    bold = set(list(told)[:6]) | set(order[:3].tolist())
    if count > ALL_LABELS:
        near = max(count // ALL_LABELS, 1)
        for index in bold:
            ticks = {t: None for t in ticks if abs(t - index) > near or t in bold}
        ticks |= dict.fromkeys(bold)
    places = sorted(ticks)
    whole = count <= ALL_LABELS
    texts = []
    for index in places:
        name = lines[index].name if whole or index in bold else _block(lines[index].name)
        text = label(name, 18)
        texts.append(f"<b>{text}</b>" if index in bold else text)
    return {
        "range": [count - 0.5, -0.5],
        "tickvals": places,
        "ticktext": texts,
        "ticks": "",
        "showgrid": False,
    }


def _block(name: str) -> str:
    return name.rpartition(".")[0] or name


def _block_middles(lines: Sequence[Line]) -> list[int]:
    groups: dict[str, list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(_block(line.name), []).append(index)
    middles = sorted(members[len(members) // 2] for members in groups.values())
    every = max(1, -(-len(middles) // ALL_LABELS))
    return middles[::every]


def _meta(
    lines: Sequence[Line],
    cells: Mapping[str, Cells],
    which: np.ndarray[Any, Any],
    broken: Flags,
    steps: Ints,
) -> dict[str, Any]:
    return {
        "rows": [
            {"name": line.name, "type": line.type, "frozen": not line.trainable} for line in lines
        ],
        "statistics": [{"key": key, "title": TITLES[key]} for key in cells],
        "values": [array(value.mean.astype(np.float32)) for value in cells.values()],
        "which": which.tolist() if which.size < 400 else array(which),
        "nonfinite": np.argwhere(broken)[:20_000].tolist(),
        "steps": steps.tolist(),
    }


def _told(lines: Sequence[Line], score: Floats, broken: Flags, steps: Ints) -> str:
    text = f"{len(lines)} layers up to step {number(int(steps[-1]))}: "
    ill = np.nan_to_num(np.abs(score)).max(axis=1) >= bands.EDGE
    if not ill.any() and not broken.any():
        return text + "all within their healthy bands."
    parts = []
    if broken.any():
        row, bucket = np.argwhere(broken)[np.argwhere(broken)[:, 1].argmin()]
        parts.append(
            f"NaN or infinity in {int(broken.any(axis=1).sum())} layers, "
            f"first in {lines[row].name or '(root)'} at step {number(int(steps[bucket]))}"
        )
    if ill.any():
        names = [lines[index].name or "(root)" for index in np.flatnonzero(ill)[:5]]
        more = f" and {int(ill.sum()) - 5} more" if ill.sum() > 5 else ""
        parts.append(f"outside the healthy band at times: {', '.join(names)}{more}")
    return text + "; ".join(parts) + "."
