"""lr-schedule-mismatch: a schedule that ends long before the training does."""

from typing import ClassVar

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.statistics import Curve, Span, number
from trainvitals.app.rules.thresholds import Count, Share


class LrScheduleMismatch(Rule):
    """Every learning rate is zero, or as good as, and the training goes on."""

    id: ClassVar[str] = "lr-schedule-mismatch"
    steps: ClassVar[Count] = 50
    """Steps at zero, at least. A schedule that ends with the training never has them."""
    share: ClassVar[Share] = 0.1
    """Of all steps so far, at least: in a long training the last steps at zero cost little."""
    nothing: ClassVar[Share] = 1e-6
    """Of the highest rate so far: cosine schedules end at a hundredth or a thousandth of it, if not at zero."""

    since: int = -1
    first: int = -1
    last: int = -1
    above: int = 0
    """Last step at which the rate was seen above zero; it is not recorded at every step."""
    curve: Curve = msgspec.field(default_factory=Curve)
    seen: bool = False

    def on_step(self, context: Context, view: StepView) -> None:
        if not any(name.startswith("tv/lr/") for name in view.scalars):
            return
        self.seen = True
        rate = max(context.rates.values())
        self.curve.add(view.step, rate)
        if rate > self.nothing * context.rate_top or context.rate_top <= 0:
            self.since, self.above = -1, view.step
            return
        self.since = view.step if self.since < 0 else self.since
        idle = view.step - self.since
        if idle >= max(self.steps, self.share * context.steps):
            self.first = self.above + 1 if self.first < 0 else self.first
            self.last = view.step

    def findings(self, context: Context) -> list[Finding]:
        if self.first < 0:
            return []
        return [
            self._report(
                severity="warning",
                during=Span(self.first, self.last, self.since < 0),
                where="the learning-rate schedule",
                title=f"The learning rate is zero since step {self.first}, and the training goes on",
                seen=f"{self.last - self.first} steps without a learning rate; it was up to {context.rate_top:.3g}",
                expected="A schedule that ends with the training",
                remedy="Give the schedule the steps of the whole training. If it counts epochs call scheduler.step() "
                "once an epoch, not once a batch.",
                learning_rate=number(context.rate_top),
                curve=self.curve.evidence("Learning rate", None, None),
            )
        ]

    def state(self, context: Context) -> RuleState:
        if not self.seen:
            return self._state("not enough data", "No learning rate was recorded yet.")
        if self.first < 0:
            return self._state("ok", "The learning rate is above zero.")
        return self._state("firing" if self.since >= 0 else "resolved", f"Since {self.first}.")
