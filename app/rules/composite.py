"""Rules about what other rules have found: two signs that are independent of each other say more than either."""

from collections.abc import Sequence

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context
from trainvitals.app.rules.finding import Finding, RuleState


class CompositeRule(Rule):
    """Remembers nothing of a run: it is told what the other rules have found so far, before any arbitration."""

    def combine(self, context: Context, found: Sequence[Finding]) -> list[Finding]:
        """What `found` amounts to."""
        raise NotImplementedError

    def standing(self, context: Context, found: Sequence[Finding]) -> RuleState:
        """Where the rule stands beside `found`."""
        combined = self.combine(context, found)
        if combined:
            return self._state(combined[0].state, combined[0].title)
        return self._without_finding(context)
