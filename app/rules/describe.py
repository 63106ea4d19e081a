"""The rules as a policy has them, for the command line, the API and the settings page."""

from collections.abc import Iterator

import msgspec

from trainvitals.app.rules.about import about
from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.finding import Severity
from trainvitals.app.rules.policy import Policy, RulePolicy
from trainvitals.app.rules.thresholds import thresholds


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold in force."""

    name: str
    value: float
    default: float
    reason: str
    """Of the default."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A rule in force."""

    id: str
    finds: str
    severities: str
    enabled: bool
    severity: dict[Severity, Severity]
    """What its severities become; those that are not in it stay."""
    thresholds: list[Value]
    ignore_layers: list[str]
    reason: str
    changes: list[str]
    """What the policy changes of it, in words."""


def describe(rule: type[Rule], policy: Policy) -> Described:
    """`rule` under `policy`."""
    said, text = policy.of(rule.id), about(rule)
    return Described(
        id=rule.id,
        finds=text.finds,
        severities=text.severity,
        enabled=said.enabled,
        severity=said.severity,
        thresholds=[
            Value(
                name=item.name,
                value=said.thresholds.get(item.name, item.default),
                default=item.default,
                reason=item.reason,
            )
            for item in thresholds(rule)
        ],
        ignore_layers=list(said.ignore_layers),
        reason=said.reason,
        changes=list(_changes(said)),
    )


def in_words(policy: Policy) -> str:
    """What a policy changes, rule by rule, in one line."""
    rules = [
        f"{name} ({'; '.join(_changes(said))})"
        for name, said in policy.rules.items()
        if any(_changes(said))
    ]
    known = len(policy.acknowledge)
    if known:
        rules.append(f"{known} acknowledgement{'s' if known > 1 else ''}")
    return f"it changes {', '.join(rules)}." if rules else "it changes nothing."


def _changes(said: RulePolicy) -> Iterator[str]:
    if not said.enabled:
        yield "off"
    yield from (f"{name} = {value:g}" for name, value in said.thresholds.items())
    if len(set(said.severity.values())) == 1 and len(said.severity) == 3:
        yield f"always {next(iter(said.severity.values()))}"
    else:
        yield from (f"{before} as {after}" for before, after in said.severity.items())
    if said.ignore_layers:
        yield f"without {', '.join(said.ignore_layers)}"
