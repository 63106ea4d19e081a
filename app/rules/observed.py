"""What rules about the observed loop share: a sight of something wrong, and how often it was seen."""

from typing import ClassVar, NamedTuple

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Persistence
from trainvitals.app.rules.thresholds import Share
from trainvitals.hooks.wire.observed import Observed


class Sight(msgspec.Struct):
    """What was wrong in one look."""

    title: str
    """One sentence with the number; " since step n" is added."""
    seen: str
    severity: Severity = "critical"
    where: str = "the training loop"
    layers: list[str] = msgspec.field(default_factory=list)


class Looked(NamedTuple):
    """The judgement of one look: whether the rule applied to it, and what was wrong."""

    applies: bool
    sight: Sight | None = None


SKIP = Looked(False)
FINE = Looked(True)


def wrong(title: str, seen: str, severity: Severity = "critical", **more: object) -> Looked:
    """A look that shows the fault."""
    return Looked(True, Sight(title, seen, severity, **more))  # type: ignore[arg-type]


class ObservedRule(Rule):
    """A condition on what was observed that has to hold in `k` of the last `n` looks to which it applies.

    The wiring of a loop is the same at every step, so few looks are sure; more than one, as a loop may do something
    else now and then.
    """

    k: ClassVar[int] = 3
    n: ClassVar[int] = 3
    expected: ClassVar[str]
    remedy: ClassVar[str]
    diff: ClassVar[str] = ""
    about: ClassVar[str] = "No look has shown a loss call of this kind."
    """Why the rule has had nothing to judge, when it had not."""

    held: Persistence = msgspec.field(default_factory=Persistence)
    sight: Sight | None = None

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        """Judge one look. Every rule of this kind has its own."""
        raise NotImplementedError

    def on_step(self, context: Context, view: StepView) -> None:
        if view.observed is None:
            return
        looked = self.look(context, view, view.observed)
        if looked.applies:
            self._hold(view.step, looked.sight)

    def _hold(self, step: int, sight: Sight | None) -> None:
        self.held.update(step, sight is not None, calm=sight is None, k=self.k, n=self.n)
        self.sight = sight or self.sight

    def findings(self, context: Context) -> list[Finding]:
        sight, held = self.sight, self.held
        if sight is None or not held.fired:
            return []
        return [
            self._report(
                severity=sight.severity,
                during=held.span,
                layers=sight.layers,
                seen=sight.seen,
                expected=self.expected,
                where=sight.where,
                title=f"{sight.title}, since step {held.onset}",
                remedy=self.remedy,
                diff=self.diff,
            )
        ]

    def state(self, context: Context) -> RuleState:
        if not self.held.count:
            return self._state("not enough data", self.about)
        if not self.held.fired and self.held.over:
            return self._state("not enough data", f"Seen {len(self.held.over)} of {self.k} times.")
        return self._held(self.held, f"As expected in {self.held.count} looks.")


class EvaluationRule(ObservedRule):
    """A rule about evaluations: calls without gradients between two steps, now and then."""

    seldom: ClassVar[Share] = 0.5
    """Share of the steps with calls without gradients up to which these are evaluations: a GAN has them at every
    step."""

    def _between_steps(self, context: Context, phases: int) -> bool:
        """Whether so many spans with such calls are few enough to be evaluations."""
        return phases <= max(self.seldom * context.steps, 1)
