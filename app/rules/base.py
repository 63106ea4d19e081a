"""What a rule is, and what it may be told."""

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import MAX_LAYERS, Finding, RuleState, RuleStateName, Severity
from trainvitals.app.rules.statistics import Persistence, Span
from trainvitals.hooks.wire.observed import Peer
from trainvitals.hooks.wire.records import Event


class Rule(msgspec.Struct):
    """A rule and all that it remembers of one run: its fields are its state and can be saved.

    A rule is told what happened in order, and never looks at a clock. Statistics come from rank 0
    only; events come from every rank in any order, so `on_event` must not depend on it.
    """

    id: ClassVar[str]

    def on_step(self, context: Context, view: StepView) -> None:
        """Take a step record of rank 0."""

    def on_event(self, context: Context, position: tuple[str, int, int], event: Event) -> None:
        """Take an event; `position` is (attempt, step, rank)."""

    def on_peer(self, context: Context, position: tuple[str, int, int], peer: Peer) -> None:
        """Take what a rank tells of itself for comparison; `position` is (attempt, step, rank).

        Like events it comes from every rank in any order; what one rank tells comes in the order of its steps.
        """

    def on_end(self, context: Context) -> None:
        """The process has ended in good order; `context.message` is what it said."""

    def findings(self, context: Context) -> list[Finding]:
        """What the rule has found so far, each as if it were a root. Every rule has its own."""
        raise NotImplementedError

    def state(self, context: Context) -> RuleState:
        """Where the rule stands: as its first finding says."""
        found = self.findings(context)
        if found:
            return self._state(found[0].state, found[0].title)
        return self._without_finding(context)

    def _without_finding(self, context: Context) -> RuleState:
        """Where it stands while there is none. Every rule has its own, or a `state` of its own in its place."""
        raise NotImplementedError

    def _report(
        self,
        *,
        severity: Severity,
        during: Span,
        title: str,
        seen: str,
        expected: str,
        remedy: str,
        layers: Sequence[str] = (),
        where: str = "",
        diff: str = "",
        **evidence: object,
    ) -> Finding:
        """A finding of this rule as a root; the first `MAX_LAYERS` of `layers` are named."""
        return Finding(
            key=self.id,
            rule=self.id,
            severity=severity,
            state="resolved" if during.resolved else "firing",
            first_step=during.first,
            last_step=during.last,
            layers=list(layers[:MAX_LAYERS]),
            root=True,
            cause="",
            evidence={
                "seen": seen,
                "expected": expected,
                "since": during.first,
                "where": where or listing(list(layers)),
                **({"layers": len(layers)} if len(layers) > MAX_LAYERS else {}),
                **evidence,
            },
            title=title,
            remedy=remedy,
            diff=diff,
        )

    def _state(self, name: RuleStateName, reason: str) -> RuleState:
        return RuleState(rule=self.id, state=name, reason=reason)

    def _held(self, held: Persistence, healthy: str) -> RuleState:
        """The state that a persistence gives, once there are samples."""
        if held.fired and held.resolved:
            return self._state(
                "resolved", f"Held from step {held.onset} to {held.last}; normal since."
            )
        if held.fired:
            return self._state("firing", f"Holds since step {held.onset}.")
        return self._state("ok", healthy)


def listing(names: Sequence[str], kind: str = "layers") -> str:
    """A few names in a sentence: all of up to three, else the first, the last and how many of a `kind` they are."""
    shown = [name or "the model" for name in names]
    if not shown:
        return "no layer"
    if len(shown) <= 3:
        return sequence(shown)
    return f"{shown[0]} … {shown[-1]} ({len(shown)} {kind})"


def sequence(words: Sequence[str]) -> str:
    """All of at least one word, as in a sentence: "a, b and c"."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if words[1:] else words[0]
