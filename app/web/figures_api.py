"""What the pages draw, as JSON: figures and the vitals map."""

from typing import Any

import numpy as np
from flask import Blueprint, Response, request

from trainvitals.app.figures import judged
from trainvitals.app.figures import vitals as map_figure
from trainvitals.app.figures.base import empty
from trainvitals.app.figures.cells import Line
from trainvitals.app.figures.marks import unlabelled
from trainvitals.app.store.types import Run
from trainvitals.app.web import deltas, livemap, mapdata, runview
from trainvitals.app.web.charts import FORMS, HISTOGRAMS, SCALES, Chart, Charts, Look
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.params import choice, known_run, optional_whole, step_range
from trainvitals.app.web.serialize import json_response

bp = Blueprint("figures_api", __name__)

TABS = ("vitals", "update_ratio", "std", "dead_fraction", "grad_rms", "zero_fraction")
"""Statistics of the map as a Plotly figure."""


@bp.get("/api/v1/runs/<run_id>/figures/loss")
def loss(run_id: str) -> Response:
    """Training and validation loss with event lines."""
    figure = Charts(get_store(), known_run(run_id), look_of_request()).loss()
    return json_response(deltas.Tracked(figure).whole)


@bp.get("/api/v1/runs/<run_id>/figures/metrics")
def metrics(run_id: str) -> Response:
    """Every other scalar as a small chart: `figures`, each with key, title, data and layout."""
    return _all(Charts(get_store(), known_run(run_id), look_of_request()).metrics())


@bp.get("/api/v1/runs/<run_id>/figures/layer")
def layer(run_id: str) -> Response:
    """The small multiples of the layer `name`: `figures`, each with key, title, data and layout."""
    run = known_run(run_id)
    line = known_line(run_id, request.args.get("name", ""))
    return _all(Charts(get_store(), run, look_of_request()).layer(line))


@bp.get("/api/v1/runs/<run_id>/figures/histogram")
def histogram(run_id: str) -> Response:
    """Histograms over time of the layer `name`.

    `kind`: weight, gradient (of its first weight) or activation; `form`: heatmap, ridgeline or quantiles.
    """
    run = known_run(run_id)
    line = known_line(run_id, request.args.get("name", ""))
    kind = choice("kind", list(HISTOGRAMS))
    figure = Charts(get_store(), run, look_of_request()).histogram(
        line, kind, choice("form", FORMS, "heatmap")
    )
    return json_response(deltas.Tracked(figure).whole)


@bp.get("/api/v1/runs/<run_id>/figures/vitals")
def vitals(run_id: str) -> Response:
    """The vitals map as a Plotly figure; `statistic` is one of `TABS`."""
    run = known_run(run_id)
    tab = choice("statistic", TABS, "vitals")
    start, stop = step_range()
    store = get_store()
    read = mapdata.cells(store, run, tab, start, stop)
    if read is None:
        return json_response(empty("No layer was measured yet. The first sample comes soon."))
    lines, cells, breaks = read
    findings = store.findings(run_id)
    end = runview.last_step(run) + 1
    figure = map_figure.vitals(
        lines,
        cells,
        np.logical_or.reduce([value.nonfinite > 0 for value in breaks.values()]),
        stop=end if stop is None else min(stop, end),
        marks=unlabelled(runview.marks(store, run)),
        names=[name for item in findings if item.root for name in item.layers[:3]],
        levels=mapdata.levels(store, run, list(cells), lines, start, stop),
    )
    for row in figure["layout"]["meta"].get("rows", []):
        row["link"] = runview.layer_address(run_id, row["name"])
    figure["layout"]["xaxis"]["range"] = [start or 0, max(end - 1, 1) if stop is None else stop]
    return json_response(figure)


@bp.get("/api/v1/runs/<run_id>/map")
def vitals_map(run_id: str) -> Response:
    """The vitals map as the page's canvas draws it: a code a cell; `statistic` is any of `judged.STATISTICS`."""
    return json_response(map_news(known_run(run_id), "") or {})


def map_news(run: Run, known: str) -> dict[str, Any] | None:
    """What is new of the map for a page that has `known`: None for nothing, its last buckets, all, or a part."""
    statistic = choice("statistic", judged.STATISTICS, "vitals")
    start, stop = step_range()
    made = livemap.picture(get_store(), run, statistic, start, stop)
    if made is None:
        return {"rows": [], "summary": "No layer was measured yet. The first sample comes soon."}
    if mapdata.token(made) == known:
        return None
    first = mapdata.kept(made, known)
    stop = mapdata.fitting(made, first) if known else None
    return judged.packed(made, first, stop) | {"token": mapdata.token(made, stop)}


@bp.get("/api/v1/runs/<run_id>/map/row")
def map_row(run_id: str) -> Response:
    """Every statistic of the layer `name` in the buckets of the map, for its read-out."""
    run = known_run(run_id)
    line = known_line(run_id, request.args.get("name", ""))
    start, stop = step_range()
    return json_response(mapdata.row(get_store(), run, line, start, stop))


@bp.get("/api/v1/runs/<run_id>/axis")
def axis(run_id: str) -> Response:
    """Where the steps are in another `unit` (epoch, time, tokens), for the labels of the step axes."""
    run = known_run(run_id)
    unit = choice("unit", ("epoch", "time", "tokens"))
    steps, values, needed = runview.unit_series(get_store(), run, unit)
    return json_response({"steps": steps, "values": values, "needed": needed})


def known_line(run_id: str, name: str) -> Line:
    """The layer of that name. Raises ApiError 404."""
    for line in runview.lines(get_store().layouts(run_id)):
        if line.name == name:
            return line
    raise ApiError(404, "no_such_layer", f"This run has no layer {name[:80]!r}.")


def look_of_request() -> Look:
    """What the query parameters ask to look at. Raises ApiError 400."""
    start, stop = step_range()
    smoothing = optional_whole("smooth", 0, 99)
    scale = choice("scale", SCALES, "auto")
    return Look(start, stop, None if smoothing is None else smoothing / 100, scale)


def _all(charts: list[Chart]) -> Response:
    return json_response({"figures": [deltas.Tracked(chart).whole for chart in charts]})
