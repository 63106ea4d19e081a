"""Data as JSON: runs, series, matrices, events, rule states, the delivery log, health."""

import time
from importlib.metadata import version as package_version

from flask import Blueprint, Response, request

from trainvitals.app.rules.engine import Engine, StateError, states_of
from trainvitals.app.store import Conflict, NotFound, Store
from trainvitals.app.store.status import heard, status
from trainvitals.app.store.types import SHELVES, Delivery, Run, Series, StreamState
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.params import choice, known_run, step_range, whole
from trainvitals.app.web.serialize import json_response, plain, timestamp
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.columns import ACTIVATION, PARAMETER
from trainvitals.hooks.wire.records import GroupKind

bp = Blueprint("api", __name__)

MAX_NAMES = 50
"""Series in one answer."""
_MAX_RANKS = 64

_STATISTICS: dict[GroupKind, list[str]] = {
    "activation": [column.key for column in ACTIVATION],
    "parameter": [column.key for column in PARAMETER],
}


@bp.get("/healthz")
def healthz() -> Response:
    """Whether the server runs and can read its database."""
    get_store().runs(limit=1)
    return json_response({"status": "ok"})


@bp.get("/version")
def version() -> Response:
    """Release of the server and the version of the record format it takes."""
    return json_response({"version": package_version("trainvitals"), "wire": limits.VERSION})


@bp.get("/api/v1/runs")
def list_runs() -> Response:
    """Runs, the newest first; `limit` of them (default 1000) of a `shelf` (active, archived, deleted)."""
    shelf = choice("shelf", SHELVES, "active")
    runs = get_store().runs(limit=whole("limit", 1000, 1, 10_000), shelf=shelf)
    counts = get_store().finding_counts()
    now = time.time()
    return json_response(
        {"runs": [{**_summary(run, now), "open_findings": counts.get(run.id, {})} for run in runs]}
    )


@bp.get("/api/v1/runs/<run_id>")
def show_run(run_id: str) -> Response:
    """One run with its configuration, layers and metric names."""
    run = known_run(run_id)
    store = get_store()
    groups = [
        {"group": layout.group, "kind": layout.kind, "columns": layout.columns, "rows": layout.rows}
        for layout in store.layouts(run_id)
    ]
    now = time.time()
    details = {
        "config": plain(run.config),
        "environment": run.environment,
        "end_message": run.end_message,
        "judged": _is_judged(store, run),
        "scalars": store.scalar_names(run_id),
        "groups": groups,
        "streams": [_stream(item, now) for item in store.streams(run_id)],
    }
    return json_response(_summary(run, now) | details)


@bp.delete("/api/v1/runs/<run_id>")
def delete_run(run_id: str) -> Response:
    """Delete a run. It can be restored until retention purges it."""
    known_run(run_id)
    if not get_store().delete_run(run_id, time.time()):
        raise NotFound(f"Run {run_id!r} is gone already.")
    return json_response({"deleted": run_id})


@bp.post("/api/v1/runs/<run_id>/restore")
def restore_run(run_id: str) -> Response:
    """Bring a deleted run back, with everything that was recorded of it."""
    if not get_store().restore_run(run_id):
        raise NotFound(
            f"There is no deleted run {run_id[:80]!r}. GET /api/v1/runs?shelf=deleted lists those there are."
        )
    return json_response({"restored": run_id})


@bp.post("/api/v1/runs/<run_id>/archive")
def archive_run(run_id: str) -> Response:
    """Put a run away: out of the list, and kept whatever retention says."""
    known_run(run_id)
    if not get_store().archive_run(run_id, time.time()):
        raise Conflict(f"Run {run_id!r} is archived already.")
    return json_response({"archived": run_id})


@bp.post("/api/v1/runs/<run_id>/unarchive")
def unarchive_run(run_id: str) -> Response:
    """Bring an archived run back into the list."""
    known_run(run_id)
    if not get_store().unarchive_run(run_id):
        raise Conflict(f"Run {run_id!r} is not archived.")
    return json_response({"unarchived": run_id})


@bp.get("/api/v1/runs/<run_id>/states")
def list_states(run_id: str) -> Response:
    """Where every rule stands, also those that found nothing or don't apply."""
    known_run(run_id)
    state = get_store().evaluation(run_id).state
    try:
        states = Engine().states() if state is None else states_of(state)
    except StateError:  # of another release; the evaluator judges the run anew
        states = Engine().states()
    return json_response({"states": states})


@bp.get("/api/v1/runs/<run_id>/events")
def list_events(run_id: str) -> Response:
    """What happened at single steps, in order; `limit` of them (default 1000)."""
    known_run(run_id)
    events = get_store().events(run_id, limit=whole("limit", 1000, 1, 10_000))
    return json_response(
        {
            "events": [
                {
                    "step": event.step,
                    "time": timestamp(event.time),
                    "kind": event.kind,
                    "layer": event.layer,
                    "message": event.message,
                    "data": plain(event.data),
                }
                for event in events
            ]
        }
    )


@bp.get("/api/v1/runs/<run_id>/series")
def read_series(run_id: str) -> Response:
    """Scalars over the steps from `start` to `stop`, thinned to about `points` buckets each.

    `names` is a comma-separated list, or given several times. A bucket keeps minimum, maximum, mean, the last
    value and how many values were NaN or infinite.
    """
    known_run(run_id)
    names = [name for part in request.args.getlist("names") for name in part.split(",") if name]
    known = get_store().scalar_names(run_id)
    if not names or len(names) > MAX_NAMES:
        raise ApiError(
            400, "invalid_parameter", f"names has {len(names)} names; expected 1 to {MAX_NAMES}."
        )
    for name in names:
        if name not in known:
            some = ", ".join(known[:20]) or "none yet"
            raise ApiError(404, "no_such_series", f"No metric {name[:80]!r}; recorded: {some}.")
    start, stop = step_range()
    points = whole("points", 1000, 1, 20_000)
    series = get_store().series(run_id, names, start=start, stop=stop, points=points)
    return json_response(
        {"series": {name: _series(series[name]) for name in names if name in series}}
    )


@bp.get("/api/v1/runs/<run_id>/matrix")
def read_matrix(run_id: str) -> Response:
    """One statistic of all layers or parameters over the steps, in `buckets` columns (default 400)."""
    known_run(run_id)
    kind = choice("kind", list(_STATISTICS))
    recorded = [
        c for item in get_store().layouts(run_id) if item.kind == kind for c in item.columns
    ]
    statistic = choice("statistic", list(dict.fromkeys([*recorded, *_STATISTICS[kind]])))
    start, stop = step_range()
    buckets = whole("buckets", 400, 1, 5_000)
    matrix = get_store().matrix(run_id, kind, statistic, start=start, stop=stop, buckets=buckets)
    return json_response(
        {
            "kind": kind,
            "statistic": statistic,
            "rows": [row.name for row in matrix.rows],
            "steps": matrix.steps,
            "min": matrix.min,
            "max": matrix.max,
            "mean": matrix.mean,
            "nonfinite": matrix.nonfinite,
            "recorded": matrix.recorded,
        }
    )


@bp.get("/api/v1/alerts")
def list_alerts() -> Response:
    """The delivery log of alerts, the newest first; of one `run` where it is given."""
    run = request.args.get("run") or None
    if run is not None:
        known_run(run)
    deliveries = get_store().deliveries(run, limit=whole("limit", 200, 1, 5_000))
    return json_response({"deliveries": [_delivery(item) for item in deliveries]})


def _summary(run: Run, now: float) -> dict[str, object]:
    return {
        "id": run.id,
        "project": run.project,
        "name": run.name,
        "status": status(run, now),
        "tags": run.tags,
        "world_size": run.world_size,
        "attempts": run.attempts,
        "created": timestamp(run.created),
        "last_seen": timestamp(run.last_seen),
        "last_step": run.last_step,
        "version": run.version,
        "archived": timestamp(run.archived),
        "deleted": timestamp(run.deleted),
    }


def _stream(item: StreamState, now: float) -> dict[str, object]:
    return {
        "attempt": item.attempt,
        "rank": item.rank,
        "status": item.status_reported or heard(item.last_seen, now),
        "last_seen": timestamp(item.last_seen or None),
        "last_step": item.last_step,
    }


def _is_judged(store: Store, run: Run) -> bool:
    """Whether the rules have read every record that is stored."""
    cursor = store.evaluation(run.id).cursor
    ranks = range(min(run.world_size, _MAX_RANKS))
    return all(
        cursor.get(f"{attempt}/{rank}", 0) >= store.next_seq(run.id, attempt, rank)
        for attempt in run.attempts
        for rank in ranks
    )


def _delivery(item: Delivery) -> dict[str, object]:
    times = {name: timestamp(getattr(item, name)) for name in ("created", "updated", "retry_at")}
    return {field: getattr(item, field) for field in item.__struct_fields__} | times


def _series(item: Series) -> dict[str, object]:
    return {
        name: getattr(item, name) for name in ("steps", "min", "max", "mean", "last", "nonfinite")
    }
