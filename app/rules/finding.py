"""What the rules say about a run: findings, and the state of each rule."""

from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

Severity = Literal["info", "warning", "critical"]
State = Literal["firing", "resolved"]
RuleStateName = Literal["ok", "not enough data", "not applicable", "firing", "resolved", "error"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From mild to severe; the index is the rank."""

MAX_LAYERS: Final = 50
"""Layers that a finding names."""


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
    """Dotted names of the layers concerned, most affected first, at most `MAX_LAYERS`; empty for the whole run."""
    root: bool
    """Whether no other finding explains this one."""
    cause: str
    """Key of the root finding that explains this one; "" for a root."""
    evidence: dict[str, Any]
    """JSON-able: "seen" ("each" sign of it where there are several), "expected", "since", "where"; non-finite numbers
    as "nan", "inf", "-inf".

    "layers" is how many layers are concerned, where they are more than are named; "signs" are the rules whose findings
    make up this one, and "each" tells of them. An optional "curve" holds {"steps": [...], "values": [...], "band":
    [low, high], "label": text} with at most 200 points.
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

    @property
    def concerned(self) -> int:
        """How many layers are concerned, with those that `layers` has no room for."""
        return int(self.evidence.get("layers", len(self.layers)))

    def tells(self, other: "Finding") -> bool:
        """Whether `other` is one of the signs that make up this finding, which tells of it itself."""
        return other.cause == self.key and other.rule in self.evidence.get("signs", ())

    def followers(self, findings: "Iterable[Finding]") -> "list[Finding]":
        """Those of `findings` that followed from this one, without its own signs."""
        return [item for item in findings if item.cause == self.key and not self.tells(item)]


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
