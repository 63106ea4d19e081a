"""A run as one HTML file: verdict, findings, main plots. No script, nothing to load: it opens anywhere, for good."""

import base64
import hashlib
import re
import time
from pathlib import Path

from flask import Blueprint, Response, current_app, render_template, request

from trainvitals.app.figures import judged, svg
from trainvitals.app.store import Store
from trainvitals.app.store.types import Run
from trainvitals.app.web import livemap, runview
from trainvitals.app.web.charts import Charts, Look
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.figures_api import look_of_request
from trainvitals.app.web.params import choice, known_run

bp = Blueprint("report", __name__)

MAX_CHARTS = 8
"""Small charts of a report: learning rate, gradient norm, then the run's own metrics."""
_DARK = re.compile(r":root\[data-theme=dark\] (\{[^}]*\})")


@bp.get("/runs/<run_id>/report")
def report(run_id: str) -> Response:
    """The report of a run; with `download` it is a file to keep."""
    run = known_run(run_id)
    page = make(get_store(), run, request.host_url.rstrip("/"))
    response = Response(page, mimetype="text/html")
    style = hashlib.sha256(
        page[page.index("<style>") + 7 : page.index("</style>")].encode()
    ).digest()
    allowed = base64.b64encode(style).decode()
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    if "download" in request.args:
        response.headers["Content-Disposition"] = (
            f'attachment; filename="trainvitals-{run.id}.html"'
        )
    return response


@bp.get("/api/v1/runs/<run_id>/chart.svg")
def picture(run_id: str) -> Response:
    """A chart of a run's page as a picture; `chart`: "loss", "vitals" (then also `statistic`), or a metric."""
    run = known_run(run_id)
    store, look = get_store(), look_of_request()
    key = request.args.get("chart", "loss")
    if key == "vitals":
        statistic = choice("statistic", judged.STATISTICS, "vitals")
        made = livemap.picture(store, run, statistic, look.start, look.stop)
        drawn = None if made is None else svg.vitals(made, 1200)
    else:
        charts = Charts(store, run, look)
        found = [charts.loss() | {"key": "loss"}, *charts.metrics()]
        drawn = next((svg.chart(item, 1200, 320) for item in found if item["key"] == key), None)
    if drawn is None:
        raise ApiError(404, "no_such_chart", f"This run has no chart {key[:80]!r} that is drawn.")
    response = Response(svg.standalone(drawn, _colours()), mimetype="image/svg+xml")
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    response.headers["Content-Disposition"] = 'attachment; filename="trainvitals-chart.svg"'
    return response


def make(store: Store, run: Run, server: str) -> str:
    """The report as HTML, inside an application context. `server`: where the live page is, "" for nowhere."""
    now = time.time()
    shown = runview.view(store, run, now)
    charts = Charts(store, run, Look())
    picture = livemap.picture(store, run, "vitals", None, None)
    small = [item for item in charts.metrics() if item.get("group") != "system"][:MAX_CHARTS]
    return render_template(
        "report.html",
        view=shown,
        run=run,
        facts=runview.facts(store, run, store.scalar_names(run.id)),
        loss=svg.chart(charts.loss(), 1000, 240),
        vitals=None if picture is None else svg.vitals(picture, 1000),
        sickest=picture is not None and len(picture.lines) > svg.MAX_ROWS,
        charts=[(item["title"], svg.chart(item, 480, 150)) for item in small],
        style=_style(),
        now=now,
        address=f"{server}/runs/{run.id}" if server else "",
    )


def _colours() -> str:
    """The colours of the light style, and what a drawing needs to be read."""
    text = _sheets("app.css")
    own = "svg{background:#fff}text{font:11px sans-serif}text:not([fill]){fill:var(--muted)}"
    return f"{text[text.index(':root') : text.index('}') + 1]}{own}.end{{text-anchor:end}}.mid{{text-anchor:middle}}"


def _sheets(*names: str) -> str:
    folder = Path(current_app.static_folder or "")
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)


def _style() -> str:
    """The style sheets in one, dark by the reader's system: a file has no switch."""
    text = _DARK.sub(
        r"@media (prefers-color-scheme: dark) { :root \1 }", _sheets("app.css", "report.css")
    )
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S).replace("</", "<\\/")
