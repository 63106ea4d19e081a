"""What another policy would have made of a recorded run."""

from pathlib import Path
from typing import Literal

import msgspec

from trainvitals.app.diagnose import recorded
from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.finding import Finding
from trainvitals.app.rules.policy import Policy

Kind = Literal["same", "changed", "new", "gone"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One finding under both policies."""

    key: str
    before: Finding | None
    """Under the policy in force; None when it did not fire."""
    after: Finding | None
    """Under the other one."""

    @property
    def kind(self) -> Kind:
        """What the other policy makes of it."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "gone"
        return "same" if _said(self.before) == _said(self.after) else "changed"


def backtest(target: str, database: Path | None, before: Policy, after: Policy) -> list[Change]:
    """Every finding of a run under either policy. `target` and what is raised are those of `diagnose.recorded`."""
    engines = Engine(policy=before), Engine(policy=after)
    for stream, record in recorded(target, database):
        for engine in engines:
            engine.feed(stream, record)
    then, now = ({found.key: found for found in engine.findings()} for engine in engines)
    return [
        Change(key=key, before=then.get(key), after=now.get(key))
        for key in dict.fromkeys([*then, *now])
    ]


def _said(finding: Finding) -> tuple[object, ...]:
    return (
        finding.severity,
        finding.state,
        finding.first_step,
        finding.last_step,
        finding.layers,
        finding.cause,
        finding.acknowledged,
    )
