"""plateau: a loss that no longer falls, and a learning rate that ran out before the loss had."""

import math
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Curve, Persistence, Span, number
from trainvitals.app.rules.thresholds import Count, Share

MOST: Final = 200
"""Means that are kept of the whole curve; more are joined in pairs."""
WINDOW: Final = 20
"""Means at least that a trend is fitted to: the rule was simulated with as many."""
FEWEST: Final = 8
"""Means that tell whether the loss was falling for sure."""
CONFIDENCE: Final = 2.1
"""Standard errors to both sides of 95 % of the slopes, with 18 degrees of freedom."""
ROWS: Final = 5
"""Judgements in a row."""


class Trend(msgspec.Struct):
    """What a fit of log loss against log step says of the next steps."""

    optimistic: float
    """Share of the loss that the next window takes off it, at the better end of the 95 % interval."""
    pessimistic: float
    """The same at the worse end."""


class Plateau(Rule):
    """The training loss will not fall by another percent in as many steps as it was judged over.

    A badge wherever the learning rate is still at work: the end of a healthy training looks like a stalled one, and
    whether its level is low enough nobody but the user knows. A warning where the plateau began with the learning rate:
    the loss was falling, the rate went to less than a hundredth of its height, and the training goes on without it.
    """

    id: ClassVar[str] = "plateau"
    improvement: ClassVar[Share] = 0.01
    """Share of the loss that still counts as a fall. Of simulated losses that fall by a power of 0.3 none is called a
    plateau, at noise of up to 3 %; patience of 5 evaluations calls 63 % of them so at 1 %."""
    window: ClassVar[Share] = 0.2
    """Of the run so far that the trend is fitted to, and that is looked ahead."""
    after: ClassVar[Count] = 300
    """Steps after the warm-up, at least: many nets leave their first level late."""
    spent: ClassVar[Share] = 0.01
    """Of the highest rate: below it a schedule has stopped the training. A decay in steps goes to a tenth or a
    hundredth, a cosine is below it in the last sixteenth of its length."""

    name: str = ""
    steps: list[int] = msgspec.field(default_factory=list)
    """Last step of each mean."""
    means: list[float] = msgspec.field(default_factory=list)
    size: int = 5
    """Losses in a mean."""
    total: float = 0.0
    count: int = 0
    start: int = 0
    signed: bool = False
    held: Persistence = msgspec.field(default_factory=Persistence)
    curve: Curve = msgspec.field(default_factory=Curve)
    last: Trend | None = None
    begun: int = -1
    """First step of the window that was first called a plateau."""
    above: int = 0
    """Last step at which a rate was seen that is not; it is not recorded at every step."""
    low_since: int = -1
    """Step from which on all rates were spent."""
    was_falling: bool = False
    """Whether the loss was falling for sure when they came to that."""
    stopped: Persistence = msgspec.field(default_factory=Persistence)
    """Of a level loss ever since they were."""
    stop: int = -1
    """Step from which on they were, when that had lasted."""

    def on_step(self, context: Context, view: StepView) -> None:
        value, loss = view.loss, context.loss
        self._watch_rate(context, view)
        if value is None or not math.isfinite(value):
            return
        if loss.name != self.name:
            self.name, self.steps, self.means, self.size = loss.name, [], [], 5
            self.total, self.count, self.start, self.curve = 0.0, 0, view.step, Curve()
        self.curve.add(view.step, loss.fast)
        self.signed |= value < 0
        self.total += value
        self.count += 1
        if self.count < self.size:
            return
        self.means.append(self.total / self.size)
        self.steps.append(view.step)
        self.total, self.count = 0.0, 0
        self._judge(context, view.step)
        if len(self.means) >= MOST:
            pairs = zip(self.means[::2], self.means[1::2], strict=True)
            self.means = [(one + two) / 2 for one, two in pairs]
            self.steps = self.steps[1::2]
            self.size *= 2

    def _watch_rate(self, context: Context, view: StepView) -> None:
        if not any(name.startswith("tv/lr/") for name in view.scalars) or not context.rate_top > 0:
            return
        if max(context.rates.values()) >= self.spent * context.rate_top:
            self.above, self.low_since = view.step, -1
        elif self.low_since < 0:
            self.low_since = self.above + 1
            trend = self._trend(min(WINDOW, len(self.means)))
            self.was_falling = trend is not None and trend.pessimistic > self.improvement

    def _judge(self, context: Context, step: int) -> None:
        if self._reason(context) or step - max(self.start, context.warm_up_end) < self.after:
            return
        long = max(WINDOW, int(self.window * len(self.means)))
        self.last = self._trend(long)
        if self.last is None:
            return
        flat = self.last.optimistic < self.improvement
        fired = self.held.fired
        calm = self.last.optimistic > 2 * self.improvement
        self.held.update(step, flat, calm=calm, k=ROWS, n=ROWS)
        if self.held.fired and not fired:
            self.begun = self.steps[-long]
        behind = sum(at >= self.low_since for at in self.steps) if self.low_since >= 0 else 0
        trend = self._trend(behind) if self.was_falling and behind >= long else None
        if trend is not None:
            flat, calm = (
                trend.optimistic < self.improvement,
                trend.optimistic > 2 * self.improvement,
            )
            self.stopped.update(step, flat, calm=calm, k=ROWS, n=ROWS)
            self.stop = self.low_since if self.stopped.fired and self.stop < 0 else self.stop

    def _trend(self, long: int) -> Trend | None:
        """Over the last `long` means; None where there are too few, or where one is not above zero."""
        means = np.array(self.means[-long:])
        if not FEWEST <= long <= len(means) or not (means > 0).all():
            return None
        at = np.array(self.steps[-long:], dtype=np.float64) - self.start + 1
        x, y = np.log(at), np.log(means)
        x, centre = x - x.mean(), y - y.mean()
        spread = float(x @ x)
        slope = float(x @ centre) / spread
        rest = centre - slope * x
        error = math.sqrt(float(rest @ rest) / (long - 2) / spread)
        ahead = math.log1p(self.window)
        return Trend(
            optimistic=-math.expm1((slope - CONFIDENCE * error) * ahead),
            pessimistic=-math.expm1((slope + CONFIDENCE * error) * ahead),
        )

    def _reason(self, context: Context) -> str:
        """Why it is not applicable; "" when it is."""
        if context.several_models:
            return "Several models are trained against or with each other."
        if self.signed:
            return "The loss takes negative values: no percent of it can be told."
        return ""

    def findings(self, context: Context) -> list[Finding]:
        if self.last is None or self._reason(context):
            return []
        if self.stopped.fired:
            return [self._ran_out(context)]
        return [self._level(context)] if self.held.fired else []

    def _level(self, context: Context) -> Finding:
        """The loss is level, with the learning rate at work."""
        return self._found(
            context,
            "info",
            self.held.span._replace(first=self.begun),
            self.name,
            f"{self.name} no longer falls since step {self.begun}: it stays at {self.means[-1]:.3g}",
            "If it is not low enough: divide the learning rate by 2 to 10 and go on. If that does not help, the model "
            "is too small, the regularisation too strong, or the data hold no more. Else the training is finished.",
        )

    def _ran_out(self, context: Context) -> Finding:
        """The loss was falling when the learning rate went, and has been level ever since."""
        rate = max(context.rates.values(), default=math.nan)
        times = context.rate_top / max(rate, 1e-30)
        return self._found(
            context,
            "warning",
            self.stopped.span._replace(first=self.stop),
            "the learning-rate schedule",
            f"{self.name} fell until the learning rate was down at {rate:.2g}, {times:.3g} times below its height, and "
            f"stays at {self.means[-1]:.3g} since step {self.stop}",
            "Stretch the schedule over the whole training: milestones are often meant in epochs, and stepped "
            "at every batch. Or end the training here: without a rate nothing more is learned.",
        )

    def _found(
        self,
        context: Context,
        severity: Severity,
        during: Span,
        where: str,
        title: str,
        remedy: str,
    ) -> Finding:
        most = max(self.last.optimistic, 0.0) if self.last is not None else 0.0
        return self._report(
            severity=severity,
            during=during,
            where=where,
            title=title,
            seen=f"Within the next {100 * self.window:g} % of the steps it will fall by at most {100 * most:.2g} % "
            "(95 % sure)",
            expected=f"At least {100 * self.improvement:g} %, while the training goes on",
            remedy=remedy,
            level=number(self.means[-1]),
            learning_rate=number(max(context.rates.values(), default=math.nan)),
            clear=context.warm_up_end if severity == "warning" else during.first,
            curve=self.curve.evidence(self.name, None, None),
        )

    def state(self, context: Context) -> RuleState:
        if not context.loss.count:
            return self._state("not enough data", "No training loss was logged yet.")
        if reason := self._reason(context):
            return self._state("not applicable", reason)
        if self.last is None:
            return self._state(
                "not enough data",
                f"Judged {self.after} steps after the warm-up, on {WINDOW} means of losses above zero.",
            )
        return self._held(self.held, "It falls, or may.")
