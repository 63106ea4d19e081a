"""The policy that rules judge by, and what a training is told of its run."""

from flask import Blueprint, Response, current_app

from trainvitals.app.policyfile import in_force, read
from trainvitals.app.rules import RULES
from trainvitals.app.rules.describe import describe
from trainvitals.app.rules.finding import Finding
from trainvitals.app.settings import Settings
from trainvitals.app.web.db import get_store
from trainvitals.app.web.params import known_run
from trainvitals.app.web.serialize import json_response
from trainvitals.hooks.wire import verdict

bp = Blueprint("policy_api", __name__)


@bp.get("/api/v1/policy")
def show_policy() -> Response:
    """The policy file, what is wrong in it, and every rule as it is in force."""
    settings: Settings = current_app.config["SETTINGS"]
    reading = read(settings.rules)
    policy = in_force(reading, settings.database)
    state = "wrong" if reading.problems else "right" if reading.exists else "missing"
    return json_response(
        {
            "path": reading.path,
            "state": state,
            "text": reading.text,
            "problems": reading.problems,
            "in_force": policy.digest,
            "rules": [describe(rule, policy) for rule in RULES],
            "acknowledged": policy.acknowledge,
        }
    )


@bp.get("/api/v1/runs/<run_id>/verdict")
def tell_verdict(run_id: str) -> Response:
    """The root findings that hold now, without their evidence: what `on_finding` acts on in a training."""
    known_run(run_id)
    holding = [
        found
        for found in get_store().findings(run_id)
        if found.root and found.state == "firing" and not found.acknowledged
    ]
    return json_response(
        verdict.Verdict(findings=[_told(found) for found in holding[: verdict.MAX_FINDINGS]])
    )


def _told(found: Finding) -> verdict.Finding:
    return verdict.Finding(
        key=found.key,
        rule=found.rule,
        severity=found.severity,
        step=found.first_step,
        layers=found.layers[: verdict.MAX_LAYERS],
        title=found.title[: verdict.MAX_SENTENCE],
        remedy=found.remedy[: verdict.MAX_SENTENCE],
    )
