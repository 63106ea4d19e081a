"""The pages about alerts and settings: inbox, mutes, delivery log, channels; tokens, retention, rules."""

import time
from typing import Any

import msgspec
from flask import Blueprint, current_app, render_template, request

from trainvitals.app.alerts.contact import findings_of
from trainvitals.app.alerts.message import finding_id
from trainvitals.app.alerts.plan import REMIND_S, WAIT_S, is_acknowledged
from trainvitals.app.rules.finding import Finding
from trainvitals.app.settings import SETTINGS, Settings
from trainvitals.app.store import Store
from trainvitals.app.store.types import Handling, Run
from trainvitals.app.web import channels_api
from trainvitals.app.web.db import get_store
from trainvitals.app.web.findings_api import muted_until
from trainvitals.app.web.params import whole
from trainvitals.app.web.security import held_role

bp = Blueprint("alertpages", __name__)

MAX_RUNS = 200
"""Runs whose findings are in the inbox: the newest."""
MAX_HISTORY = 50
MAX_DELIVERIES = 100


class Entry(msgspec.Struct, frozen=True):
    """A finding in the inbox."""

    id: str
    run: Run
    finding: Finding
    followers: list[Finding]
    acknowledged: float | None
    muted: float | None

    @property
    def waits(self) -> bool:
        """Whether someone is to look at it."""
        handled = self.acknowledged or self.muted or self.finding.acknowledged
        return self.finding.state == "firing" and not handled


@bp.get("/alerts")
def alerts() -> str:
    """What people were told: what waits for someone, what is handled, what is over; mutes, channels, deliveries."""
    store = get_store()
    known = store.runs(limit=MAX_RUNS)
    entries = [entry for run in known for entry in _entries(store, run, time.time())]
    firing = [entry for entry in entries if entry.finding.state == "firing"]
    firing.sort(key=lambda entry: entry.finding.severity != "critical")
    asked = request.args.get("finding", "")
    return render_template(
        "alerts.html",
        waiting=[entry for entry in firing if entry.waits],
        handled=[entry for entry in firing if not entry.waits],
        over=[entry for entry in entries if entry.finding.state == "resolved"][:MAX_HISTORY],
        asked=next((entry for entry in entries if entry.id == asked), None),
        asked_id=asked,
        channels=channels_api.overview(),
        deliveries=store.deliveries(None, limit=whole("limit", MAX_DELIVERIES, 1, 1000)),
        names={run.id: run.name or run.id for run in known},
        waits=WAIT_S,
        reminds=REMIND_S,
    )


@bp.get("/settings")
def settings() -> str:
    """What the server runs with: tokens (whether, never which), retention, channels, the policy of the rules."""
    held: Settings = current_app.config["SETTINGS"]
    return render_template(
        "settings.html",
        settings=[_setting(held, setting.name, setting) for setting in SETTINGS],
        role=held_role(),
        protected=(bool(held.token), bool(held.read_token)),
        channels=channels_api.overview(),
        policy="/api/v1/policy" in {rule.rule for rule in current_app.url_map.iter_rules()},
    )


def _entries(store: Store, run: Run, now: float) -> list[Entry]:
    findings = findings_of(store, run.id)
    if not findings:
        return []
    said = store.handling(run.id)
    return [
        _entry(run, finding, findings, said.get(finding.key), now)
        for finding in findings
        if finding.root and finding.severity != "info"
    ]


def _entry(
    run: Run, finding: Finding, findings: list[Finding], said: Handling | None, now: float
) -> Entry:
    seen = said is not None and is_acknowledged(finding, said)
    return Entry(
        id=finding_id(run.id, finding.key),
        run=run,
        finding=finding,
        followers=finding.followers(findings),
        acknowledged=said.acknowledged if said is not None and seen else None,
        muted=muted_until(said, now),
    )


def _setting(held: Settings, name: str, setting: Any) -> dict[str, Any]:
    """A setting as it may be seen: of a secret, whether it is set."""
    value = getattr(held, name)
    if setting.secret:
        text = "set" if value else "not set"
    else:
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return {"env": setting.env, "help": setting.help, "value": text, "secret": setting.secret}
