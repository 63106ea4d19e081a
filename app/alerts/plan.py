"""Which messages a change of the findings calls for. Pure: no clock, no store, no channel."""

from collections.abc import Iterable
from typing import Literal

from trainvitals.app.rules.finding import SEVERITIES, Finding
from trainvitals.app.store.types import AlertRow, Handling

Kind = Literal["open", "escalated", "resolved"]

WAIT_S = {"critical": 2.0, "warning": 15.0}
"""How long a new root waits for its consequences, so that they arrive as lines of one message, seconds."""

REMIND_S = {"critical": 4 * 3600.0, "warning": 24 * 3600.0}
"""How often a root that still holds is told again while its run goes on, seconds."""

_ALERTING = SEVERITIES.index("warning")


def plan(
    run_id: str, before: Iterable[Finding], after: Iterable[Finding], now: float
) -> list[AlertRow]:
    """The rows for the outbox after the findings of a run went from `before` to `after`.

    One group for each root finding that is at least a warning; consequences are lines of their root's
    message. An id names the run, the finding, the step of its onset and the kind of message: the same
    change never makes a second row, and a finding that comes back later makes new ones.
    """
    earlier = {finding.key: finding for finding in before}
    return [
        _row(run_id, finding, kind, now)
        for finding in after
        for kind in _kinds(earlier.get(finding.key), finding)
    ]


def reminder(
    opening: AlertRow, finding: Finding, said: Handling | None, now: float
) -> AlertRow | None:
    """The newest reminder that is due of what `opening` told; None for none, and for what is acknowledged.

    Its id holds its number: however often this is asked, each is one row, and those that were missed are not made up.
    """
    if not _is_open(finding) or is_acknowledged(finding, said):
        return None
    number = int((now - opening.created) // REMIND_S[finding.severity])
    if number < 1:
        return None
    return AlertRow(
        id=f"{opening.id.rpartition('/')[0]}/reminder-{number}",
        run=opening.run,
        group=opening.group,
        kind="reminder",
        created=now,
        not_before=now,
    )


def is_acknowledged(finding: Finding, said: Handling | None) -> bool:
    """Whether someone has seen `finding` since it began."""
    return (
        said is not None and said.acknowledged is not None and said.first_step == finding.first_step
    )


def open_id(row_id: str) -> str:
    """Id of the row that opened what the row `row_id` escalates or resolves."""
    return f"{row_id.rpartition('/')[0]}/open"


def _kinds(before: Finding | None, after: Finding) -> list[Kind]:
    if before is not None and _is_open(before):
        if after.state == "resolved":
            return ["resolved"]
        if not after.root:  # another root explains it now, and its message tells of this one
            return ["resolved"]
        if after.acknowledged:
            return []
        return ["escalated"] if _rank(after) > _rank(before) else []
    if _is_open(after):
        return ["open"]
    return ["open", "resolved"] if _was_missed(before, after) else []


def _is_open(finding: Finding) -> bool:
    alerting = finding.root and finding.state == "firing" and _rank(finding) >= _ALERTING
    return alerting and not finding.acknowledged


def _was_missed(before: Finding | None, after: Finding) -> bool:
    """Whether a critical root came and went between two looks: too bad to keep quiet about."""
    new = before is None or before.first_step != after.first_step
    gone = after.root and after.state == "resolved" and not after.acknowledged
    return new and gone and after.severity == "critical"


def _rank(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def _row(run_id: str, finding: Finding, kind: Kind, now: float) -> AlertRow:
    # A resolve waits as long as any opening may, so that it never overtakes its own.
    wait = max(WAIT_S.values()) if kind == "resolved" else WAIT_S[finding.severity]
    return AlertRow(
        id=f"{run_id}/{finding.key}/{finding.first_step}/{kind}",
        run=run_id,
        group=finding.key,
        kind=kind,
        created=now,
        not_before=now + wait,
    )
