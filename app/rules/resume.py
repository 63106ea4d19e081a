"""resume-discontinuity: a training that goes on from a checkpoint, and not from where it was."""

import math
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.statistics import Curve, Span, mad, median, number
from trainvitals.app.rules.thresholds import Count, Positive, Share

KEPT: Final = 500
"""Losses that are kept, so that those before an earlier checkpoint are among them."""
COMPARED: Final = 20
"""Last losses before the checkpoint that are compared with."""


class ResumeDiscontinuity(Rule):
    """Right after the training goes on, its loss is far above what it was before."""

    id: ClassVar[str] = "resume-discontinuity"
    noise: ClassVar[Positive] = 7.0
    """Deviations of single losses before, by their median: other batches in another order stay within 3."""
    given_back: ClassVar[Share] = 0.3
    """Part of the fall since the start. A warm restart of the rate, or Adam without its moments, costs less."""
    after: ClassVar[Count] = 10
    """Losses after going on whose median is judged."""

    attempt: str = ""
    kept: list[tuple[int, float]] = msgspec.field(default_factory=list)
    """Steps and losses, but for those that were lost as an earlier step went on."""
    before: list[float] = msgspec.field(default_factory=list)
    fresh: list[float] = msgspec.field(default_factory=list)
    """Losses before and after the training went on; the first empty where there is nothing to compare."""
    initial: float = math.nan
    at: int = -1
    """Step at which it went on."""
    times: int = 0
    """How often it has."""
    found: Span | None = None
    level: float = math.nan
    usual: float = math.nan
    curve: Curve = msgspec.field(default_factory=Curve)

    def on_step(self, context: Context, view: StepView) -> None:
        if context.attempt != self.attempt:
            if self.attempt:
                self._went_on(context, view.step)
            self.attempt = context.attempt
        if view.loss is None or not math.isfinite(view.loss):
            return
        self.kept = [*self.kept, (view.step, view.loss)][-KEPT:]
        self.curve.add(view.step, view.loss)
        if self.before:
            self.fresh.append(view.loss)
            if len(self.fresh) >= self.after:
                self._judge(view.step)

    def _went_on(self, context: Context, step: int) -> None:
        self.kept = [(at, value) for at, value in self.kept if at < step]
        earlier = [value for _, value in self.kept][-COMPARED:]
        self.at, self.fresh, self.initial = step, [], context.loss.initial
        self.times += 1
        self.before = earlier if len(earlier) == COMPARED else []

    def _judge(self, step: int) -> None:
        usual, level = median(self.before), median(self.fresh)
        fall = max(self.initial - usual, 0.0)
        if level - usual > max(self.noise * mad(self.before), self.given_back * fall):
            self.found = Span(self.at, step, False)
            self.level, self.usual = level, usual
        elif self.found is not None:
            self.found = self.found._replace(resolved=True)  # it went on once more, and well
        self.before = []

    def findings(self, context: Context) -> list[Finding]:
        if self.found is None:
            return []
        name = context.loss.name
        return [
            self._report(
                severity="warning",
                during=self.found,
                where="the checkpoint",
                title=f"{name} went from {self.usual:.3g} to {self.level:.3g} as the training went on at step "
                f"{self.found.first}",
                seen=f"Median {self.level:.4g} after going on, {self.usual:.4g} before",
                expected="The loss that was there before, within its noise",
                remedy="Save and load the state of the model, the optimizer, the schedule and the gradient scaler, and "
                "what scales the inputs. Load before the optimizer is made only if its parameters stay the same "
                "objects, and compare a loss on one fixed batch before saving and after loading.",
                diff='+ optimizer.load_state_dict(checkpoint["optimizer"])\n'
                '+ scheduler.load_state_dict(checkpoint["scheduler"])',
                before=number(self.usual),
                now=number(self.level),
                curve=self.curve.evidence(name, None, self.usual),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if not self.times:
            return self._state("not applicable", "The training runs in one process life so far.")
        if self.before:
            return self._state("not enough data", f"Judged after {self.after} losses.")
        return self._state(
            "ok", f"It has gone on {self.times} times; the loss was what it had been."
        )
