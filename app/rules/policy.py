"""What a policy changes: rules on or off, their thresholds and severities, layers left out, findings acknowledged.

Plain data: it is saved with what the rules remember of a run, so that it is known which policy judged what.
"""

import datetime
from collections.abc import Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from trainvitals.app.rules.context import Role
from trainvitals.app.rules.finding import Finding, Severity

Mode = Literal["scratch", "fine-tuning", "adapter"]


class RulePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is changed of one rule."""

    enabled: bool = True
    severity: dict[Severity, Severity] = {}
    """What the rule's own severity becomes; those that are not in it stay."""
    thresholds: dict[str, float] = {}
    ignore_layers: tuple[str, ...] = ()
    """Globs of layers that the rule does not see."""
    reason: str = ""
    """For people."""

    def ignores(self, layer: str) -> bool:
        """Whether the rule does not see this layer."""
        return any(fnmatchcase(layer, pattern) for pattern in self.ignore_layers)


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Findings that are known: shown as such, without an alert, until a day."""

    rule: str
    until: datetime.date
    """The last day, in UTC, of which records count."""
    layers: tuple[str, ...] = ()
    """Globs. All layers of a finding must match one of them; none given: whatever the layers."""
    projects: tuple[str, ...] = ()
    """Globs of the projects in which it counts; none given: all."""
    reason: str = ""

    def covers(self, finding: Finding, project: str, time: float) -> bool:
        """Whether it speaks of this finding in a run whose newest record is of `time` (Unix seconds)."""
        return (
            finding.rule == self.rule
            and time < self._end
            and (not self.projects or _matches(project, self.projects))
            and (not self.layers or _all_match(finding.layers, self.layers))
        )

    @property
    def _end(self) -> float:
        day_after = self.until + datetime.timedelta(days=1)
        return datetime.datetime.combine(day_after, datetime.time(), datetime.UTC).timestamp()

    @property
    def text(self) -> str:
        """As a finding shows it."""
        return f"until {self.until}" + (f": {self.reason}" if self.reason else "")


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All changes to the rules' defaults."""

    rules: dict[str, RulePolicy] = {}
    acknowledge: tuple[Acknowledgement, ...] = ()
    roles: dict[str, Role] = {}
    """Globs of layers or parameters whose role is not what the rules would infer."""
    mode: Mode | None = None
    """How the training is, where that is not what the rules would infer."""

    @property
    def digest(self) -> str:
        """Twelve hex digits that name what it says; "" for the defaults. Texts for people don't count."""
        rules = {
            name: msgspec.structs.replace(rule, reason="") for name, rule in self.rules.items()
        }
        said = Policy(
            rules={k: v for k, v in rules.items() if v != _UNCHANGED},
            acknowledge=self.acknowledge,
            roles=self.roles,
            mode=self.mode,
        )
        if said == DEFAULTS:
            return ""
        return sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:12]

    def of(self, rule: str) -> RulePolicy:
        """What it says of a rule."""
        return self.rules.get(rule, _UNCHANGED)

    def apply(self, finding: Finding, project: str, time: float) -> Finding:
        """`finding` under this policy: its severity, whether it is acknowledged, and what was changed of its rule."""
        if self == DEFAULTS:
            return finding
        rule = self.of(finding.rule)
        covering = (item for item in self.acknowledge if item.covers(finding, project, time))
        known = next(covering, None)
        changes = {"thresholds": rule.thresholds, "ignore_layers": list(rule.ignore_layers)}
        said: dict[str, Any] = {name: value for name, value in changes.items() if value}
        return msgspec.structs.replace(
            finding,
            severity=rule.severity.get(finding.severity, finding.severity),
            acknowledged=known.text if known else "",
            policy=self.digest,
            evidence=finding.evidence | ({"policy": said} if said else {}),
        )


DEFAULTS: Final = Policy()
"""The policy that changes nothing."""
_UNCHANGED: Final = RulePolicy()


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _all_match(layers: Sequence[str], patterns: Sequence[str]) -> bool:
    return bool(layers) and all(_matches(layer, patterns) for layer in layers)
