"""Figures as JSON: what the pages draw, one address each, and the poll for news of a run."""

import time
from typing import Any, cast

import numpy as np
from flask import Blueprint, Response, render_template, request

from trainvitals.app.figures import judged
from trainvitals.app.figures import layer as layer_figures
from trainvitals.app.figures import series as series_figures
from trainvitals.app.figures import vitals as map_figure
from trainvitals.app.figures.base import empty
from trainvitals.app.figures.cells import Line, positive
from trainvitals.app.figures.types import Figure, Mark
from trainvitals.app.store.types import Run
from trainvitals.app.web import mapdata, runview
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.params import choice, known_run, optional_whole, step_range
from trainvitals.app.web.serialize import json_response
from trainvitals.hooks.wire.columns import SCALARS, Scale
from trainvitals.hooks.wire.records import HistogramKind

bp = Blueprint("figures_api", __name__)

TABS = ("vitals", "update_ratio", "std", "dead_fraction", "grad_rms", "zero_fraction")
_HISTOGRAMS = {"weight": "weights", "gradient": "gradients", "activation": "activations"}
"""What a layer's histograms are of."""
POINTS = 800
SMALL_POINTS = 400
MAX_CHARTS = 40
"""Small charts on a run's page; a run with more metrics shows the first ones by name."""

_DECLARED = {column.key: column for column in SCALARS}
_OWN_ORDER = ("tv/grad_norm", "tv/step_time", "tv/data_wait", "tv/overhead")
_SYSTEM = "tv/system/"
_SYSTEM_ORDER = [column.key for column in SCALARS if column.key.startswith(_SYSTEM)]
MAX_HISTOGRAMS = 12
"""Logged histograms on a run's page; a run with more shows the first ones in the order of their names."""


@bp.get("/api/v1/runs/<run_id>/live")
def live(run_id: str) -> Response:
    """Whether the run changed since `version`, and its texts anew if so."""
    run = known_run(run_id)
    known = optional_whole("version")
    store = get_store()
    changed = known is None or known != run.version
    shown = runview.view(store, run, time.time())
    answer: dict[str, Any] = {
        "version": run.version,
        "status": shown.status,
        "last_step": run.last_step,
        "changed": changed,
        "pill": render_template("_pill.html", view=shown),
    }
    if changed:
        names = store.scalar_names(run_id)
        facts = runview.facts(store, run, names)
        answer["verdict"] = render_template("_verdict.html", view=shown, facts=facts)
        answer["findings"] = render_template("_findings.html", view=shown)
        answer["title"] = shown.verdict.state
    return json_response(answer)


@bp.get("/api/v1/runs/<run_id>/figures/loss")
def loss(run_id: str) -> Response:
    """Training and validation loss with event lines."""
    run = known_run(run_id)
    store = get_store()
    names = store.scalar_names(run_id)
    name = runview.training_loss(names)
    validation = runview.validation_losses(names)[: series_figures.MAX_VALIDATION]
    start, stop = step_range()
    wanted = [*([name] if name else []), *validation]
    read = store.series(run_id, wanted, start=start, stop=stop, points=POINTS) if wanted else {}
    figure = series_figures.loss(
        read.get(name) if name else None,
        {key: read[key] for key in validation if key in read},
        _marks(run, start, stop),
        name=name or "loss",
    )
    return json_response(_over(figure, run, start, stop))


@bp.get("/api/v1/runs/<run_id>/figures/metrics")
def metrics(run_id: str) -> Response:
    """Every other scalar as a small chart: `figures`, each with key, title, data and layout."""
    run = known_run(run_id)
    store = get_store()
    names = store.scalar_names(run_id)
    hidden = {runview.training_loss(names), *runview.validation_losses(names)}
    start, stop = step_range()
    rates = [name for name in names if name.startswith("tv/lr/")]
    own = [name for name in _OWN_ORDER if name in names]
    logged = sorted(n for n in names if not n.startswith("tv/") and n not in hidden)
    shown = [*rates[:6], *own, *logged][:MAX_CHARTS]
    system = sorted((n for n in names if n.startswith(_SYSTEM)), key=_system_place)[:MAX_CHARTS]
    wanted = shown + system
    read = (
        store.series(run_id, wanted, start=start, stop=stop, points=SMALL_POINTS) if wanted else {}
    )
    plain = [Mark(mark.step, "", mark.color) for mark in _marks(run, start, stop)]
    charts = []
    if rates and rates[0] in read:
        others = {name: read[name] for name in rates[1:6] if name in read}
        figure = series_figures.small(
            read[rates[0]], title="Learning rate", scale="log", marks=plain, others=others
        )
        if others:
            figure["layout"]["meta"]["keys"] = [
                {"name": name.removeprefix("tv/lr/"), "color": color}
                for name, color in zip([rates[0], *others], series_figures.COLORS, strict=False)
            ]
        charts.append(_chart("tv/lr", "Learning rate", _over(figure, run, start, stop)))
    for name in (name for name in [*own, *logged, *system] if name in read):
        title, unit, scale = _declared(name)
        figure = series_figures.small(read[name], title=title, unit=unit, scale=scale, marks=plain)
        hint = "" if unit in ("s", "fraction") else unit  # those stand at the axis
        chart = _chart(name, title, _over(figure, run, start, stop), hint)
        charts.append(chart | {"group": "system"} if name in system else chart)
    return json_response({"figures": charts + _logged_histograms(run, start, stop, plain)})


def _declared(name: str) -> tuple[str, str, Scale]:
    """Title, unit and scale of a scalar. One of the hooks' own may end in the index of a device."""
    base, _, index = name.rpartition("/")
    column = _DECLARED.get(name) or (_DECLARED.get(base) if index.isdigit() else None)
    if column is None:
        return name, "", "log"
    return column.title + (f" {index}" if column.key == base else ""), column.unit, column.scale


def _system_place(name: str) -> tuple[int, str]:
    key = name if name in _SYSTEM_ORDER else name.rpartition("/")[0]
    return _SYSTEM_ORDER.index(key) if key in _SYSTEM_ORDER else len(_SYSTEM_ORDER), name


def _logged_histograms(
    run: Run, start: int | None, stop: int | None, marks: list[Mark]
) -> list[dict[str, Any]]:
    """A chart of each histogram that the user's own code logs."""
    store = get_store()
    layouts = store.layouts(run.id)
    names = sorted(row.name for item in layouts if item.kind == "logged" for row in item.rows)
    charts = []
    for name in names[:MAX_HISTOGRAMS]:
        read = store.histograms(run.id, "logged", name, start=start, stop=stop, times=200)
        figure = layer_figures.histogram(
            read.steps, read.counts, marks, what=name, stop=_stop(run, stop)
        )
        charts.append(_chart(f"histogram/{name}", name, _over(figure, run, start, stop)))
    return charts


@bp.get("/api/v1/runs/<run_id>/figures/vitals")
def vitals(run_id: str) -> Response:
    """The vitals map; `statistic` is one of its tabs."""
    run = known_run(run_id)
    tab = choice("statistic", TABS, "vitals")
    start, stop = step_range()
    store = get_store()
    read = mapdata.cells(store, run, tab, start, stop)
    if read is None:
        return json_response(empty("No layer was measured yet. The first sample comes soon."))
    lines, cells, counts = read
    broken = np.logical_or.reduce([positive(value) for value in counts.values()])
    findings = store.findings(run_id)
    figure = map_figure.vitals(
        lines,
        cells,
        broken,
        stop=_stop(run, stop),
        marks=[Mark(m.step, "", m.color) for m in _marks(run, start, stop)],
        names=[name for item in findings if item.root for name in item.layers[:3]],
        levels=mapdata.levels(store, run, list(cells), lines, start, stop),
    )
    for row in figure["layout"]["meta"].get("rows", []):
        row["link"] = runview.layer_address(run_id, row["name"])
    return json_response(_over(figure, run, start, stop))


@bp.get("/api/v1/runs/<run_id>/map")
def vitals_map(run_id: str) -> Response:
    """The vitals map as the page's canvas draws it: a code a cell; `statistic` is any of `judged.STATISTICS`."""
    run = known_run(run_id)
    statistic = choice("statistic", judged.STATISTICS, "vitals")
    start, stop = step_range()
    made = mapdata.picture(get_store(), run, statistic, start, stop)
    if made is None:
        return json_response({"rows": [], "summary": "No layer was measured yet."})
    return json_response(judged.packed(made))


@bp.get("/api/v1/runs/<run_id>/figures/layer")
def layer(run_id: str) -> Response:
    """The small multiples of the layer `name`: `figures`, each with key, title, data and layout."""
    run = known_run(run_id)
    line = known_line(run_id, request.args.get("name", ""))
    start, stop = step_range()
    store = get_store()
    row = store.row(run_id, "activation", line.name, start=start, stop=stop, points=SMALL_POINTS)
    parameters = {
        name: store.row(run_id, "parameter", name, start=start, stop=stop, points=SMALL_POINTS)
        for name in line.parameters[:6]
    }

    def of(key: str) -> dict[str, Any]:
        return {_own(name, line.name): p[key] for name, p in parameters.items() if key in p}

    marks = [Mark(mark.step, "", mark.color) for mark in _marks(run, start, stop)]
    figures: list[tuple[str, str, str, Figure]] = []
    if parameters:
        hint = "‖ΔW‖ / ‖W‖ of a step; green: healthy"
        ratio = layer_figures.update_ratio(of("update_ratio"), marks)
        figures.append(("update_ratio", "Update ratio", hint, ratio))
    if row:
        hint = "mean, grey: ± std, dots: abs-max"
        figures += [
            ("activation", "Activations", hint, layer_figures.activation(row, marks)),
            (
                "std",
                "Activation std",
                "green: 10 times around its own levels",
                layer_figures.spread(row.get("std"), marks),
            ),
            (
                "shares",
                "Zero and dead share",
                "dead: zero on every sample; green: healthy",
                layer_figures.shares(row, marks),
            ),
        ]
    if parameters:
        gradient = layer_figures.lines(of("grad_rms"), marks, logarithmic=True)
        weight = layer_figures.lines(of("weight_rms"), marks)
        figures.append(("grad_rms", "Gradient RMS", "as the optimizer gets it", gradient))
        figures.append(("weight_rms", "Weight RMS", "", weight))
    return json_response(
        {
            "figures": [
                _chart(key, title, _over(figure, run, start, stop), hint)
                for key, title, hint, figure in figures
            ]
        }
    )


@bp.get("/api/v1/runs/<run_id>/figures/histogram")
def histogram(run_id: str) -> Response:
    """Histograms over time of the layer `name`; `kind`: weight, gradient (of its first weight) or activation."""
    run = known_run(run_id)
    line = known_line(run_id, request.args.get("name", ""))
    kind = cast(HistogramKind, choice("kind", list(_HISTOGRAMS)))
    start, stop = step_range()
    owner = line.name if kind == "activation" else next(iter(line.weights or line.parameters), None)
    if owner is None:
        return json_response(empty("This layer has no parameters."))
    read = get_store().histograms(run_id, kind, owner, start=start, stop=stop, times=300)
    marks = [Mark(mark.step, "", mark.color) for mark in _marks(run, start, stop)]
    figure = layer_figures.histogram(
        read.steps, read.counts, marks, what=_HISTOGRAMS[kind], stop=_stop(run, stop)
    )
    return json_response(_over(figure, run, start, stop))


def known_line(run_id: str, name: str) -> Line:
    """The layer of that name. Raises ApiError 404."""
    for line in runview.lines(get_store().layouts(run_id)):
        if line.name == name:
            return line
    raise ApiError(404, "no_such_layer", f"This run has no layer {name[:80]!r}.")


def _stop(run: Run, stop: int | None) -> int:
    """The first step after those shown."""
    end = runview.last_step(run) + 1
    return end if stop is None else min(stop, end)


def _marks(run: Run, start: int | None, stop: int | None) -> list[Mark]:
    store = get_store()
    found = runview.marks(store, run, store.findings(run.id))
    low, high = start or 0, stop if stop is not None else runview.last_step(run) + 1
    return [mark for mark in found if low <= mark.step <= high]


def _over(figure: Figure, run: Run, start: int | None, stop: int | None) -> Figure:
    """Give a figure the step range that all charts of the page share."""
    if figure["data"]:
        last = max(runview.last_step(run), 1)
        figure["layout"]["xaxis"]["range"] = [start or 0, last if stop is None else stop]
    return figure


def _chart(key: str, title: str, figure: Figure, hint: str = "") -> dict[str, Any]:
    return {"key": key, "title": title, "hint": hint, **figure}


def _own(parameter: str, layer_name: str) -> str:
    """A parameter's name within its layer: "fc1.weight" of "fc1" is "weight"."""
    return parameter.removeprefix(f"{layer_name}.") if layer_name else parameter
