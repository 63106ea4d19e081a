"""The pages: runs, one run, one layer, alerts; and what every template may use."""

import time
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, render_template, request
from markupsafe import Markup

from trainvitals.app.alerts.message import layer_names
from trainvitals.app.figures.sparkline import spark
from trainvitals.app.figures.text import evidence, number, percent, shorten
from trainvitals.app.rules.finding import SEVERITIES, Finding
from trainvitals.app.store.types import Run
from trainvitals.app.web import assets, runview
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.figures_api import known_line
from trainvitals.app.web.params import known_run, whole

bp = Blueprint("pages", __name__)
bp.register_blueprint(assets.bp)

MAX_RUNS = 200
"""Runs in the list; the newest are shown."""


@bp.get("/")
def runs() -> str:
    """All runs; the page asks for them itself."""
    return render_template("runs.html", address=request.host_url.rstrip("/"))


@bp.get("/runs/<run_id>")
def run(run_id: str) -> str:
    """One run: its verdict, findings, loss, vitals map and metrics."""
    found = _run_or_page(run_id)
    store = get_store()
    shown = runview.view(store, found, time.time())
    names = store.scalar_names(run_id)
    return render_template(
        "run.html",
        view=shown,
        run=found,
        facts=runview.facts(store, found, names),
        layers=len(runview.lines(store.layouts(run_id))),
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
    touching = [item for item in shown.findings if name in item.layers]
    return render_template(
        "layer.html",
        run=found,
        view=shown,
        line=line,
        place=place + 1,
        total=len(lines),
        output=next(
            (r.shape for i in layouts if i.kind == "activation" for r in i.rows if r.name == name),
            (),
        ),
        parameters=[rows[item] for item in line.parameters],
        before=lines[place - 1].name if place else None,
        after=lines[place + 1].name if place + 1 < len(lines) else None,
        touching=touching,
    )


@bp.get("/alerts")
def alerts() -> str:
    """What people were told: root findings of all runs, and the log of deliveries."""
    store = get_store()
    known = store.runs(limit=MAX_RUNS)
    inbox = [
        (item, finding, [f for f in findings if f.cause == finding.key])
        for item in known
        if (findings := store.findings(item.id))
        for finding in findings
        if finding.root and finding.severity != "info"
    ]
    deliveries = store.deliveries(None, limit=whole("limit", 100, 1, 1000))
    names = {item.id: item for item in known}
    return render_template("alerts.html", inbox=inbox, deliveries=deliveries, names=names)


def _run_or_page(run_id: str) -> Run:
    try:
        return known_run(run_id)
    except ApiError:
        raise ApiError(
            404,
            "no_such_run",
            "There is no such run. It may have been deleted, or the address is cut off.",
        ) from None


@bp.app_context_processor
def _tools() -> dict[str, Any]:
    """What every template may call."""
    return {
        "plotly_address": f"/assets/plotly-{assets.plotly_version()}.min.js",
        "layer_address": runview.layer_address,
        "layer_names": layer_names,
        "finding_spark": finding_spark,
        "severities": SEVERITIES,
    }


def finding_spark(item: Finding) -> Any:
    """The sparkline of a finding's evidence; None without a curve."""
    curve = item.evidence.get("curve")
    if not isinstance(curve, dict):
        return None
    return spark(
        curve.get("values") or [], steps=curve.get("steps") or [], band=curve.get("band") or []
    )


@bp.app_template_filter("when")
def when(seconds: float | None) -> Markup:
    """A moment as `<time>`: the browser shows it in local time, with the absolute one on hover."""
    if seconds is None:
        return Markup("–")
    moment = datetime.fromtimestamp(seconds, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), moment.strftime("%Y-%m-%d %H:%M UTC")
    )


@bp.app_template_filter("duration")
def duration(seconds: float) -> str:
    """Seconds as "12 s", "3 min", "2 h 5 min", "4 d 3 h"."""
    whole_seconds = max(int(seconds), 0)
    minutes, hours, days = whole_seconds // 60, whole_seconds // 3600, whole_seconds // 86400
    if minutes < 1:
        return f"{whole_seconds} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


bp.add_app_template_filter(number, "number")
bp.add_app_template_filter(percent, "percent")
bp.add_app_template_filter(evidence, "evidence")
bp.add_app_template_filter(shorten, "shorten")
bp.add_app_template_filter(runview.rule_words, "rule_words")
