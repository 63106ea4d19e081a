"""The pages of all runs and alerts, and what every template may use."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, current_app, render_template, request
from markupsafe import Markup

from trainvitals.app.alerts.message import finding_id, layer_names
from trainvitals.app.figures.sparkline import spark
from trainvitals.app.figures.text import evidence, number, opening, percent, shorten
from trainvitals.app.rules.finding import SEVERITIES, Finding
from trainvitals.app.settings import Settings
from trainvitals.app.store.types import SHELVES
from trainvitals.app.web import assets, bundle, runview
from trainvitals.app.web.params import choice

bp = Blueprint("pages", __name__)
bp.register_blueprint(assets.bp)
bp.register_blueprint(bundle.bp)


@bp.get("/")
def runs() -> str:
    """The runs of a `shelf`; the page asks for them itself."""
    settings: Settings = current_app.config["SETTINGS"]
    return render_template(
        "runs.html",
        address=request.host_url.rstrip("/"),
        shelf=choice("shelf", SHELVES, "active"),
        undo_days=settings.policy.undo_days,
    )


@bp.app_context_processor
def _tools() -> dict[str, Any]:
    """What every template may call."""
    return {
        "files_of": bundle.addresses,
        "plotly_address": f"/assets/plotly-{assets.plotly_version()}.min.js",
        "layer_address": runview.layer_address,
        "layer_names": layer_names,
        "finding_id": finding_id,
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


bp.add_app_template_test(runview.is_dated, "dated")
bp.add_app_template_filter(number, "number")
bp.add_app_template_filter(percent, "percent")
bp.add_app_template_filter(evidence, "evidence")
bp.add_app_template_filter(shorten, "shorten")
bp.add_app_template_filter(opening, "opening")
bp.add_app_template_filter(runview.rule_words, "rule_words")
