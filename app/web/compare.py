"""The comparison of runs: a page, the curves and the differences of layers as figures."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from flask import Blueprint, Response, render_template, request

from trainvitals.app.figures import compare as figures
from trainvitals.app.figures.cells import Cells, Line, gather, grid
from trainvitals.app.figures.marks import stacked, unlabelled
from trainvitals.app.figures.text import evidence, number, shorten
from trainvitals.app.figures.types import Mark
from trainvitals.app.figures.vitals import TITLES
from trainvitals.app.store.types import Matrix, Run
from trainvitals.app.web import runview
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.params import choice, known_run, step_range
from trainvitals.app.web.serialize import json_response
from trainvitals.hooks.wire.records import GroupKind

bp = Blueprint("compare", __name__)

MOST = 20
POINTS = 500
BUCKETS = 200
STATISTICS: dict[str, GroupKind] = {
    "update_ratio": "parameter",
    "std": "activation",
    "grad_rms": "parameter",
    "dead_fraction": "activation",
}
"""What layers are compared by, in the order of the tabs; where they part is looked for in the first three."""
PARTING = ("update_ratio", "std", "grad_rms")
_COUNTS = {"parameter": ("weight_nonfinite", "grad_nonfinite"), "activation": ("nonfinite",)}


class Difference(msgspec.Struct, frozen=True):
    """A row of the table of settings: what each run has, "–" for nothing."""

    name: str
    values: list[str]


@bp.get("/compare")
def page() -> str:
    """Several runs beside each other: settings, curves, layers."""
    chosen = _runs()
    now = time.time()
    store = get_store()
    views = [runview.view(store, run, now) for run in chosen]
    recorded = [store.scalar_names(run.id) for run in chosen]
    names = [name for held in recorded for name in held]
    metrics = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    losses = {loss for held in recorded if (loss := runview.training_loss(held))}
    if len(losses) > 1:  # "": the training loss, which they call by several names
        metrics.insert(0, "")
    return render_template(
        "compare.html",
        views=views,
        styles=[figures.style(index) for index in range(len(chosen))],
        config=_differing([_flat(run.config) for run in chosen]),
        environment=_differing([dict(run.environment) for run in chosen]),
        metrics=metrics or list(dict.fromkeys(names)),
        metric=request.args.get("x", "" if len(losses) > 1 else next(iter(losses), "")),
        statistics=[(key, TITLES[key]) for key in STATISTICS],
        layers=len(runview.lines(store.layouts(chosen[0].id))) if chosen else 0,
        ids=",".join(run.id for run in chosen),
    )


@bp.get("/api/v1/compare/curves")
def curves() -> Response:
    """The scalar `name` (default: the training loss) of all `runs` over the steps, as a figure."""
    chosen = _runs()
    store = get_store()
    start, stop = step_range()
    wanted = request.args.get("name", "")
    series = {}
    for run in chosen:
        name = wanted or runview.training_loss(store.scalar_names(run.id))
        read = store.series(run.id, [name], start=start, stop=stop, points=POINTS) if name else {}
        series[run.id] = read.get(name) if name else None
    labels = {run.id: run.name or run.id for run in chosen}
    last = max(map(runview.last_step, chosen)) if stop is None else stop
    marks = stacked(_marks(chosen), start or 0, last)
    return json_response(figures.curves(series, labels, wanted or "the training loss", marks))


@bp.get("/api/v1/compare/layers")
def layers() -> Response:
    """How the layers of the first two `runs` differ in `statistic`: a figure, and in words where they part first."""
    chosen = _runs()
    if len(chosen) < 2:
        raise ApiError(400, "invalid_parameter", f"runs names {len(chosen)} run; expected two.")
    key = choice("statistic", list(STATISTICS), "update_ratio")
    first, second = chosen[:2]
    start, stop = step_range()
    lines = _common(first, second)
    found = _parting(first, second, lines, start, stop)
    cells = [_cells(run.id, key, lines, start, stop) for run in (first, second)]
    ratio, broken, steps = _ratio(*cells)
    words = _told(first, second, lines, found)
    end = min(runview.last_step(first), runview.last_step(second)) + 1
    end = end if stop is None else min(stop, end)
    store = get_store()
    marks = unlabelled(mark for run in (first, second) for mark in runview.happened(store, run))
    figure = figures.difference(lines, ratio, broken, steps, end, words, key, marks)
    if figure["data"]:  # as the curves above it
        last = max(runview.last_step(first), runview.last_step(second), 1)
        figure["layout"]["xaxis"]["range"] = [start or 0, last if stop is None else stop]
    answer: dict[str, Any] = dict(figure)
    answer["parting"] = words
    answer["most"] = _most(first, lines, ratio, broken, cells)
    return json_response(answer)


def _marks(chosen: Sequence[Run]) -> list[Mark]:
    """What happened in the runs, in their colours; what is most worth a label first."""
    store = get_store()
    marks = [
        Mark(mark.step, f"{mark.label}: {shorten(run.name or run.id, 12)}", style["color"])
        for run, style in zip(chosen, map(figures.style, range(len(chosen))), strict=True)
        for mark in runview.happened(store, run)
    ]
    return sorted(marks, key=lambda mark: "NaN" not in mark.label)


def _runs() -> list[Run]:
    """The runs that the parameter `runs` names, once each. Raises ApiError."""
    ids = [part for part in request.args.get("runs", "").split(",") if part]
    ids = list(dict.fromkeys(ids))
    if not 1 <= len(ids) <= MOST:
        raise ApiError(
            400,
            "invalid_parameter",
            f"runs names {len(ids)} runs; expected 2 to {MOST}, as in /compare?runs=a,b. "
            "Select them in the list of runs.",
        )
    return [known_run(item) for item in ids]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


def _differing(all_values: Sequence[dict[str, Any]]) -> tuple[list[Difference], int]:
    """The settings that are not the same in all runs, and how many are."""
    names = list(dict.fromkeys(name for values in all_values for name in values))
    rows = [
        Difference(name, [evidence(v[name]) or '""' if name in v else "–" for v in all_values])
        for name in names
    ]
    differing = [row for row in rows if len(set(row.values)) > 1]
    return differing, len(rows) - len(differing)


def _common(first: Run, second: Run) -> list[Line]:
    store = get_store()
    known = {line.name: line for line in runview.lines(store.layouts(second.id))}
    return [line for line in runview.lines(store.layouts(first.id)) if line.name in known]


def _cells(
    run: str, key: str, lines: Sequence[Line], start: int | None, stop: int | None
) -> tuple[Cells, np.ndarray[Any, np.dtype[np.bool_]]]:
    """A statistic of the layers, and where anything of its kind was NaN or infinite."""
    store = get_store()
    kind = STATISTICS[key]
    names = (key, *_COUNTS[kind])
    read = store.matrices(run, kind, names, start=start, stop=stop, buckets=BUCKETS)
    matrices = [read[name] for name in names]
    steps = grid(matrices)
    cells = [_gather(matrix, steps, lines, kind, key) for matrix in matrices]
    return cells[0], np.logical_or.reduce([np.nan_to_num(item.max) > 0 for item in cells[1:]])


def _gather(matrix: Matrix, steps: Any, lines: Sequence[Line], kind: GroupKind, key: str) -> Cells:
    places = {row.name: index for index, row in enumerate(matrix.rows)}
    groups = [
        [line.name]
        if kind == "activation"
        else line.weights
        if key == "update_ratio"
        else line.parameters
        for line in lines
    ]
    return gather(matrix, steps, [runview.indices(places, names) for names in groups])


def _ratio(first: Any, second: Any) -> tuple[Any, Any, Any]:
    """log10 of the ratio of two runs' cells at the steps of the first; where one is broken; the steps."""
    (a, broken_a), (b, broken_b) = first, second
    if not len(a.steps) or not len(b.steps):
        shape = (len(a.mean), 0)
        return np.zeros(shape), np.zeros(shape, bool), np.zeros(0, np.int64)
    end = min(int(a.steps[-1]), int(b.steps[-1]))
    kept = np.asarray(a.steps) <= end
    steps = np.asarray(a.steps)[kept]
    # the other run's sample that was the newest at that step
    at = np.searchsorted(b.steps, steps, side="right") - 1
    fine = at >= 0
    at = np.maximum(at, 0)
    there = msgspec.structs.replace(b, mean=np.where(fine, b.mean[:, at], np.nan))
    here = msgspec.structs.replace(a, mean=a.mean[:, kept])
    broken = broken_a[:, kept] ^ (broken_b[:, at] & fine)
    return figures.log_ratio(here, there), broken, steps


def _parting(
    first: Run, second: Run, lines: list[Line], start: int | None, stop: int | None
) -> tuple[figures.Parting, str, float] | None:
    """The earliest parting over the statistics, by which of them, and log10 of the ratio there (NaN for a NaN)."""
    best: tuple[figures.Parting, str, float] | None = None
    for key in PARTING:
        ratio, broken, steps = _ratio(
            *(_cells(run.id, key, lines, start, stop) for run in (first, second))
        )
        found = figures.parting(ratio, broken, steps) if len(steps) else None
        if found is not None and (best is None or found.step < best[0].step):
            column = int(np.searchsorted(steps, found.step))
            near = ratio[found.rows[0], column : column + figures.LASTING]
            size = (
                float(near[np.nanargmax(np.abs(near))]) if np.isfinite(near).any() else float("nan")
            )
            best = (found, key, size)
    return best


def _told(
    first: Run, second: Run, lines: list[Line], found: tuple[figures.Parting, str, float] | None
) -> str:
    """Where the layers of two runs part, as a sentence."""
    if not lines:
        return "These two runs have no layer in common."
    if found is None:
        return (
            f"The {len(lines)} layers that both have stay within a factor of two of each other, "
            "or within what chance does."
        )
    parting, key, size = found
    names = [lines[row].name or "(root)" for row in parting.rows]
    which = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more layers"
    if size != size:
        how = "where only one of them is finite"
    else:
        times = (
            f"{number(float(f'{10 ** abs(size):.2g}'))} times {'larger' if size > 0 else 'smaller'}"
        )
        how = f"whose {TITLES[key]} is {times} in {first.name or first.id} than in {second.name or second.id}"
    return f"They part first at step {number(parting.step)} in {which}, {how}."


def _most(
    first: Run, lines: list[Line], ratio: Any, broken: Any, cells: Any
) -> list[dict[str, Any]]:
    """The layers that differ most, with the last value of each run."""
    if not ratio.size:
        return []
    size = np.nan_to_num(np.abs(ratio)).max(axis=1)
    order = np.argsort(-(size + 9.0 * broken.any(axis=1)), kind="stable")[:12]
    return [
        {
            "name": lines[row].name,
            "link": runview.layer_address(first.id, lines[row].name),
            "values": [_last(item[0].mean[row]) for item in cells],
            "ratio": float(10 ** size[row]),
            "broken": bool(broken[row].any()),
        }
        for row in (int(row) for row in order)
        if size[row] > figures.PARTED or broken[row].any()
    ]


def _last(values: Any) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else None
