"""What the rules say about a run: findings, and the state of each rule."""

from typing import Any, Literal

import msgspec

Severity = Literal["info", "warning", "critical"]
State = Literal["firing", "resolved"]
RuleStateName = Literal["ok", "not enough data", "not applicable", "firing", "resolved", "error"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From mild to severe; the index is the rank."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is or was wrong with a run."""

    key: str
    """Stable within the run: the rule, and its scope where a rule may find several things."""
    rule: str
    severity: Severity
    state: State
    first_step: int
    """The onset: the first sample from which the condition held, not when it was sure."""
    last_step: int
    """The last step at which the condition was seen to hold."""
    layers: list[str]
    """Dotted names of the layers concerned, most affected first; empty for the whole run."""
    root: bool
    """Whether no other finding explains this one."""
    cause: str
    """Key of the root finding that explains this one; "" for a root."""
    evidence: dict[str, Any]
    """JSON-able: "seen" ("each" sign of it where there are several), "expected", "since", "where"; non-finite numbers
    as "nan", "inf", "-inf".

    An optional "curve" holds {"steps": [...], "values": [...], "band": [low, high], "label": text}
    with at most 200 points.
    """
    title: str
    """One sentence that names the layer and the number."""
    remedy: str
    """What to do, the likeliest first."""
    diff: str = ""
    """A small change of code that shows the remedy, where one line tells it best."""
    acknowledged: str = ""
    """Until when, and why, the policy wants no alert of it; "" when it does."""
    policy: str = ""
    """`Policy.digest` of the policy that it was found under; "" for the defaults."""


class RuleState(msgspec.Struct, frozen=True, kw_only=True):
    """Where one rule stands, also when it has found nothing."""

    rule: str
    state: RuleStateName
    reason: str
    """Why: what was judged, or what is missing."""

    @property
    def judged(self) -> bool:
        """Whether the rule has looked at the run and come to a conclusion."""
        return self.state in ("ok", "resolved", "firing")
