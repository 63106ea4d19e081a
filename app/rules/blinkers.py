"""Layers that a policy hides from a rule: it judges the run as if they were not there."""

from collections.abc import Sequence

import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Group, Mask, StepView, Table
from trainvitals.app.rules.policy import Policy, RulePolicy
from trainvitals.hooks.wire.records import Event


class Blinkers:
    """What each rule sees of a step and of an event."""

    def __init__(self, policy: Policy, rules: Sequence[Rule]) -> None:
        said = {rule.id: policy.of(rule.id) for rule in rules}
        self._said = {name: rule for name, rule in said.items() if rule.ignore_layers}
        self._parts: dict[tuple[str, int], tuple[Group, Group, Mask]] = {}
        """By rule and number of a group: the whole, the part of it that is seen, and its rows."""

    def hides(self, rule: Rule, event: Event) -> bool:
        """Whether the rule is not told of an event."""
        said = self._said.get(rule.id)
        return said is not None and bool(event.layer) and said.ignores(event.layer)

    def seen(self, rule: Rule, view: StepView) -> StepView:
        """What the rule sees of a step: mostly all of it."""
        said = self._said.get(rule.id)
        if said is None:
            return view
        return StepView(
            view.record,
            view.loss,
            [self._part(rule.id, said, table) for table in view.activations],
            [self._part(rule.id, said, table) for table in view.parameters],
        )

    def _part(self, rule: str, said: RulePolicy, table: Table) -> Table:
        key = (rule, table.group.layout.group)
        whole, part, keep = self._parts.get(key, (None, None, None))
        if whole is not table.group or part is None or keep is None:
            keep = np.array([not said.ignores(row.layer) for row in table.group.rows], np.bool_)
            part = table.group.part(keep)
            self._parts[key] = table.group, part, keep
        return table.part(part, keep)
