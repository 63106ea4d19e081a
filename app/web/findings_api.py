"""Findings as JSON, and what people do with them: acknowledge, mute, unmute."""

import math
import time
from datetime import datetime

import msgspec
from flask import Blueprint, Response, request

from trainvitals.app.alerts.contact import findings_of
from trainvitals.app.alerts.message import finding_id
from trainvitals.app.alerts.plan import is_acknowledged
from trainvitals.app.rules.finding import Finding
from trainvitals.app.store.types import Handling, Run
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.params import known_run
from trainvitals.app.web.serialize import json_response, plain, timestamp

bp = Blueprint("findings_api", __name__)

LONGEST_MUTE_S = 366 * 24 * 3600.0


@bp.get("/api/v1/runs/<run_id>/findings")
def list_findings(run_id: str) -> Response:
    """What was found, as the rules rank it, each with its `id`, whether it is acknowledged and until when muted."""
    run = known_run(run_id)
    said = get_store().handling(run_id)
    found = findings_of(get_store(), run_id)
    return json_response({"findings": [as_json(run, item, said.get(item.key)) for item in found]})


@bp.get("/api/v1/findings/<wanted>")
def show_finding(wanted: str) -> Response:
    """One finding by its id."""
    return _answer(*known_finding(wanted))


@bp.post("/api/v1/findings/<wanted>/acknowledge")
def acknowledge(wanted: str) -> Response:
    """Note that someone has seen it: no more reminders. It is told when it gets worse, is over or comes back."""
    run, finding = known_finding(wanted)
    get_store().acknowledge(run.id, finding.key, finding.first_step, time.time())
    return _answer(run, finding)


@bp.post("/api/v1/findings/<wanted>/unacknowledge")
def unacknowledge(wanted: str) -> Response:
    """Take an acknowledgement back."""
    run, finding = known_finding(wanted)
    get_store().acknowledge(run.id, finding.key, finding.first_step, None)
    return _answer(run, finding)


@bp.post("/api/v1/findings/<wanted>/mute")
def mute(wanted: str) -> Response:
    """Send nothing about it before `until`, an RFC 3339 time or Unix seconds in a JSON body."""
    run, finding = known_finding(wanted)
    get_store().mute(run.id, finding.key, _until(time.time()))
    return _answer(run, finding)


@bp.post("/api/v1/findings/<wanted>/unmute")
def unmute(wanted: str) -> Response:
    """Let it be told again, from now on."""
    run, finding = known_finding(wanted)
    get_store().mute(run.id, finding.key, None)
    return _answer(run, finding)


def known_finding(wanted: str) -> tuple[Run, Finding]:
    """The finding of that id and its run. Raises ApiError 404."""
    run = known_run(wanted.rpartition(".")[0])
    for finding in findings_of(get_store(), run.id):
        if finding_id(run.id, finding.key) == wanted:
            return run, finding
    raise ApiError(
        404,
        "no_such_finding",
        f"Run {run.id} has no finding {wanted[-12:]!r} now. GET /api/v1/runs/{run.id}/findings lists those there are.",
    )


def as_json(run: Run, item: Finding, said: Handling | None) -> dict[str, object]:
    """A finding with all that is known of it."""
    seen = said if is_acknowledged(item, said) else None
    return {
        "id": finding_id(run.id, item.key),
        **{field: plain(getattr(item, field)) for field in item.__struct_fields__},
        "acknowledged_until": item.acknowledged,
        "acknowledged": timestamp(seen.acknowledged if seen else None),
        "muted_until": timestamp(muted_until(said, time.time())),
    }


def muted_until(said: Handling | None, now: float) -> float | None:
    """Until when a finding is muted, None when it is not (any more)."""
    until = said.muted_until if said is not None else None
    return until if until is not None and until > now else None


def _answer(run: Run, finding: Finding) -> Response:
    said = get_store().handling(run.id).get(finding.key)
    return json_response(as_json(run, finding, said))


def _until(now: float) -> float:
    """The time in the body. Raises ApiError 400."""
    expected = 'expected a JSON body {"until": "2026-01-31T12:00:00Z"}, at most a year from now'
    try:
        body = msgspec.json.decode(request.get_data(), type=dict[str, float | str])
        value = body.get("until", "")
        until = datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value
    except (msgspec.DecodeError, ValueError, OverflowError, OSError) as error:
        raise ApiError(400, "invalid_parameter", f"No time to mute until; {expected}.") from error
    if not (math.isfinite(until) and now < until <= now + LONGEST_MUTE_S):
        raise ApiError(
            400, "invalid_parameter", f"It can't be muted until {value!r:.60}; {expected}."
        )
    return until
