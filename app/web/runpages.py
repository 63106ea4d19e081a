"""The pages of one run: the run itself, one of its layers, its model as a tree."""

import time
from typing import Any
from urllib.parse import quote

import numpy as np
from flask import Blueprint, render_template, request

from trainvitals.app.figures import blocks, judged
from trainvitals.app.figures.types import Flags, Ints
from trainvitals.app.store import Store
from trainvitals.app.store.types import Run
from trainvitals.app.web import livemap, runview
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.figures_api import known_line
from trainvitals.app.web.params import known_run
from trainvitals.app.web.tree import grown

bp = Blueprint("runpages", __name__)

TABS = (
    ("vitals", "Vitals"),
    ("update_ratio", "Update ratio"),
    ("std", "Act. std"),
    ("dead_fraction", "Dead units"),
    ("grad_rms", "Gradient"),
    ("zero_fraction", "Zeros"),
)
"""Statistics of the map with a tab of their own; the others are in a list beside them."""


@bp.get("/runs/<run_id>")
def run(run_id: str) -> str:
    """One run: its verdict, findings, loss, vitals map and metrics."""
    found = _run_or_page(run_id)
    store = get_store()
    shown = runview.view(store, found, time.time())
    statistic = request.args.get("m", "vitals")
    return render_template(
        "run.html",
        view=shown,
        run=found,
        facts=runview.facts(store, found, store.scalar_names(run_id)),
        layers=len(runview.lines(store.layouts(run_id))),
        tabs=TABS,
        statistics=_statistics(),
        statistic=statistic if statistic in judged.STATISTICS else "vitals",
        look=_look(),
    )


@bp.get("/runs/<run_id>/model")
def model(run_id: str) -> str:
    """The model as a tree of modules, with sizes and the health of what is below each."""
    found = _run_or_page(run_id)
    store = get_store()
    shown = runview.view(store, found, time.time())
    layouts = store.layouts(run_id)
    made = livemap.picture(store, found, "vitals", None, None)
    return render_template(
        "model.html",
        run=found,
        view=shown,
        tree=grown(layouts, runview.lines(layouts), made, shown.findings),
    )


@bp.get("/runs/<run_id>/layers/", defaults={"name": None})
@bp.get("/runs/<run_id>/layers/<path:name>")
def layer(run_id: str, name: str | None) -> str:
    """One layer of a run. A name that can't be part of a path comes as the parameter `name`."""
    found = _run_or_page(run_id)
    store = get_store()
    name = request.args.get("name", "") if name is None else name
    line = known_line(run_id, name)
    layouts = store.layouts(run_id)
    lines = runview.lines(layouts)
    place = lines.index(line)
    rows = {row.name: row for item in layouts for row in item.rows}
    shown = runview.view(store, found, time.time())
    block = blocks.block_of(name)
    here = [item for item in shown.findings if name in item.layers]
    return render_template(
        "layer.html",
        run=found,
        view=shown,
        line=line,
        block=block,
        place=place + 1,
        total=len(lines),
        output=next(
            (r.shape for i in layouts if i.kind == "activation" for r in i.rows if r.name == name),
            (),
        ),
        parameters=[rows[item] for item in line.parameters],
        role=_role(line, lines),
        neighbours=[
            (item, index - place) for index, item in enumerate(lines) if abs(index - place) <= 2
        ],
        health=_health(store, found, name),
        before=lines[place - 1].name if place else None,
        after=lines[place + 1].name if place + 1 < len(lines) else None,
        touching=[item for item in here if not any(other.tells(item) for other in here)],
        look=_look(),
    )


def _run_or_page(run_id: str) -> Run:
    try:
        return known_run(run_id)
    except ApiError:
        raise ApiError(
            404,
            "no_such_run",
            "There is no such run. It may have been deleted, or the address is cut off.",
        ) from None


def _statistics() -> list[dict[str, str]]:
    """What the map can show: key, title, and whether it is a share (0 to 100 %) or held against a band."""
    found = [{"key": "vitals", "title": "Vitals: worst of all", "kind": "band"}]
    for key in judged.STATISTICS[1:]:
        kind = "share" if key in judged.SHARES else "band"
        found.append({"key": key, "title": judged.COLUMNS[key].title, "kind": kind})
    return found


def _look() -> str:
    """The view as query parameters, as static/js/steps.js asks for it: so that the page can ask ahead."""
    first, _, last = request.args.get("s", "").partition("-")
    parts = []
    if first.isascii() and first.isdigit() and last.isascii() and last.isdigit():
        low, high = int(first), int(last)
        parts += [f"start={low}", f"stop={high + 1}"] if low < high else []
    for name, parameter in (("smooth", "smooth"), ("y", "scale")):
        if value := request.args.get(name, ""):
            parts.append(f"{parameter}={quote(value, safe='')}")
    return "".join(f"&{part}" for part in parts)


def _role(line: Any, lines: list[Any]) -> str:
    """What a layer is for, as far as its place and parameters tell."""
    weighted = [item for item in lines if item.weights]
    if line in weighted:
        place = weighted.index(line)
        ends = {0: "input layer", len(weighted) - 1: "output layer"}
        return ends.get(place, "hidden layer with weights")
    return "parameters without a matrix" if line.parameters else "without parameters"


def _health(store: Store, run: Run, name: str) -> tuple[str, str]:
    """A level and a sentence on a layer's cells in the map."""
    made = livemap.picture(store, run, "vitals", None, None)
    index = (
        next((i for i, item in enumerate(made.lines) if item.name == name), None) if made else None
    )
    if made is None or index is None:
        return "wait", "Not measured yet."
    codes = made.codes[index]
    flags = judged.ill(codes)
    if not flags.any():
        return "ok", "Within its healthy bands at every step."
    broken = codes >= judged.GRADIENT_NONFINITE
    parts = [
        f"{words} {_when(made.edges, where)}"
        for words, where in (
            ("outside its healthy band", flags & ~broken),
            ("NaN or infinity", broken),
        )
        if where.any()
    ]
    text = ", ".join(parts)
    return ("critical" if broken.any() else "warning"), f"{text[0].upper()}{text[1:]}."


def _when(edges: Ints, flags: Flags) -> str:
    """The steps of the flagged buckets in words."""
    where = np.flatnonzero(flags)
    first, last = int(edges[where[0]]), int(edges[where[-1] + 1]) - 1
    if where[-1] == len(flags) - 1:
        return f"{'since' if flags[where[0] :].all() else 'at times since'} step {first:,}"
    return f"at step {first:,}" if first == last else f"between steps {first:,} and {last:,}"
