"""loss-not-decreasing, loss-spike and loss-constant: what the curve of the training loss alone tells."""

import math
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Curve, Span, median, number
from trainvitals.app.rules.thresholds import Count, Positive, Share

PARTS: Final = 40
"""Means of equal stretches that stand for the whole curve."""


class LossNotDecreasing(Rule):
    """After hundreds of steps the loss is where it began."""

    id: ClassVar[str] = "loss-not-decreasing"
    after: ClassVar[Count] = 300
    """Steps after the warm-up: fewer would blame slow starts."""
    fallen: ClassVar[Share] = 0.02
    """Share of the loss that counts as a fall, between means over a tenth of the steps each."""

    name: str = ""
    means: list[float] = msgspec.field(default_factory=list)
    size: int = 5
    total: float = 0.0
    count: int = 0
    start: int = -1
    signs: int = 0
    """1 for a positive value seen, 2 for a negative one."""
    onset: int = -1
    last: int = -1
    resolved: bool = False
    curve: Curve = msgspec.field(default_factory=Curve)

    def on_step(self, context: Context, view: StepView) -> None:
        value, loss = view.loss, context.loss
        if value is None or not math.isfinite(value):
            return
        if loss.name != self.name:
            self.name, self.means, self.size, self.curve = loss.name, [], 5, Curve()
            self.total, self.count, self.start, self.signs = 0.0, 0, view.step, 0
        self.curve.add(view.step, loss.fast)
        self.signs |= 1 if value > 0 else 2
        self.total += value
        self.count += 1
        if self.count == self.size:
            self.means.append(self.total / self.size)
            self.total, self.count = 0.0, 0
            self._judge(context, view.step)
            if len(self.means) == 2 * PARTS:
                pairs = zip(self.means[::2], self.means[1::2], strict=True)
                self.means = [(one + two) / 2 for one, two in pairs]
                self.size *= 2

    def _judge(self, context: Context, step: int) -> None:
        if step - max(self.start, context.warm_up_end) < self.after or self._reason(context):
            return
        tenth = max(2, len(self.means) // 10)
        first, last = self.means[:tenth], self.means[-tenth:]
        start = median(first)
        # A loss that fell and came back is another fault.
        lowest = min(median(self.means[i : i + 3]) for i in range(len(self.means) - 2))
        if median(last) > (1 - self.fallen) * start and lowest > (1 - 3 * self.fallen) * start:
            self.onset = self.start if self.onset < 0 else self.onset
            self.last, self.resolved = step, False
        elif self.onset >= 0:
            self.resolved = True

    def _reason(self, context: Context) -> str:
        """Why it is not applicable; "" when it is."""
        if context.several_models:
            return "Several models are trained against or with each other."
        if self.signs != 1:
            return "The loss takes negative values, so it need not fall towards zero."
        prior = self._prior(context)
        if not prior > 0:
            return "What guessing costs is not known, so a loss that is low already cannot be told."
        if context.loss.initial < 0.5 * prior:
            return f"It began at {context.loss.initial:.3g}, well below what guessing costs ({prior:.3g})."
        return ""

    @staticmethod
    def _prior(context: Context) -> float:
        labels = context.labels
        for key in ("entropy", "variance"):
            if labels.get(key, 0.0) > 0:
                return labels[key]
        width = context.last_width
        near = width > 1 and abs(context.loss.initial - math.log(width)) < 0.5 * math.log(width)
        return math.log(width) if near else math.nan

    def findings(self, context: Context) -> list[Finding]:
        if self.onset < 0 or self._reason(context):
            return []
        tenth = max(2, len(self.means) // 10)
        first, last = median(self.means[:tenth]), median(self.means[-tenth:])
        return [
            self._report(
                severity="warning",
                during=Span(self.onset, self.last, self.resolved),
                where=self.name,
                title=f"{self.name} has not fallen since step {self.onset}: from {first:.4g} to {last:.4g}",
                seen=f"{last:.4g} after {self.last - self.onset} steps; it began with {first:.4g}",
                expected=f"At least {100 * self.fallen:g} % lower",
                remedy="Try to overfit one batch. If that fails look at the wiring: labels that do not belong to their "
                "inputs, a cut graph, frozen weights. If it works raise or lower the learning rate by 10.",
                curve=self.curve.evidence(self.name, None, number_or_none(first)),
            )
        ]

    def state(self, context: Context) -> RuleState:
        if not context.loss.count:
            return self._state("not enough data", "No training loss was logged yet.")
        if reason := self._reason(context):
            return self._state("not applicable", reason)
        if self.onset >= 0:
            return self._state("resolved" if self.resolved else "firing", f"Since {self.onset}.")
        if context.last_step - max(self.start, context.warm_up_end) < self.after:
            return self._state("not enough data", f"Judged after {self.after} losses.")
        return self._state("ok", "It falls.")


def number_or_none(value: float) -> float | None:
    """`value` for a band, None when it is not finite."""
    return value if math.isfinite(value) else None


WINDOW: Final = 200
LEAST: Final = 20
"""Losses that make a usual range."""
RUN: Final = 5.0
"""Deviations that do for a loss behind one that was out of range."""
APART: Final = 5
"""Steps after which another spike is one of its own."""
WITHIN: Final = 1000
BACK: Final = 100


class LossSpike(Rule):
    """Single losses far out of their usual range, and above where the training began."""

    id: ClassVar[str] = "loss-spike"
    deviations: ClassVar[Positive] = 10.0
    """As successive losses show them, from the median of the last 20. At 5, heavy-tailed losses of healthy runs
    alarm 150 times in 10,000 steps, at 10 still up to 10 times: hence the scale of logarithms and the height."""
    often: ClassVar[Count] = 4
    """Spikes within 1,000 steps that are worth a warning: single ones come back by themselves."""

    name: str = ""
    usual: list[float] = msgspec.field(default_factory=list)
    """Logarithms of the last losses within their range, or plain losses where some are negative."""
    spikes: list[int] = msgspec.field(default_factory=list)
    """First steps of the last spikes."""
    out: int = 0
    """Losses out of range in a row; after `BACK` they are the usual ones."""
    last: int = -1
    first: int = -1
    noted: int = 0
    several: bool = False
    peak: float = -math.inf
    level: float = math.nan
    curve: Curve = msgspec.field(default_factory=Curve)

    def on_step(self, context: Context, view: StepView) -> None:
        value, loss = view.loss, context.loss
        if value is None or not math.isfinite(value) or value <= 0:
            return
        if loss.name != self.name:
            self.name, self.usual, self.spikes, self.curve, self.out = loss.name, [], [], Curve(), 0
        self.curve.add(view.step, value)
        level = math.log(value)
        if not self._is_out(level, value, context):
            self.out = 0
            self.usual = [*self.usual[-WINDOW + 1 :], level]
            return
        self.out += 1
        if self.out > BACK:
            self.usual = [*self.usual[-WINDOW + 1 :], level]
        if self.last < 0 or view.step - self.last > APART:
            self.spikes = [step for step in self.spikes if step > view.step - WITHIN]
            self.spikes = [*self.spikes[-20:], view.step]
            self.noted += 1
            if self.first < 0:
                self.first = view.step
        self.last = view.step
        self.level = math.exp(median(self.usual))
        self.peak = max(self.peak, value)
        self.several |= len(self.spikes) >= self.often

    def _is_out(self, level: float, value: float, context: Context) -> bool:
        if len(self.usual) < LEAST or value < context.loss.initial:
            return False
        changes = [abs(b - a) for a, b in zip(self.usual, self.usual[1:], strict=False)]
        scale = max(1.4826 * median(changes) / math.sqrt(2), 0.05)
        return (level - median(self.usual[-LEAST:])) / scale > (
            RUN if self.out else self.deviations
        )

    def findings(self, context: Context) -> list[Finding]:
        if self.first < 0:
            return []
        severity: Severity = "warning" if self.several and not context.several_models else "info"
        return [
            self._report(
                severity=severity,
                during=Span(self.first, self.last, context.last_step - self.last > WITHIN),
                where=self.name,
                title=f"{self.name} spiked {self.noted} times since step {self.first}, up to {self.peak:.3g} "
                f"from a usual {self.level:.3g}",
                seen=f"Up to {self.peak:.4g}; the median of {WINDOW} losses before was {self.level:.4g}",
                expected=f"Within {self.deviations:g} deviations of that median, or below the loss of the start",
                remedy="Look at the batches of these steps: a broken sample, a wrong scale, a wrong label. Then clip "
                "the gradient norm; lower Adam's β2 to 0.95; lower the learning rate by 3.",
                steps=self.spikes,
                peak=number(self.peak),
                baseline=number(self.level),
                curve=self.curve.evidence(self.name, None, None),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if len(self.usual) < LEAST:
            return self._state("not enough data", f"Judged after {LEAST} positive losses.")
        return self._state("ok", "No loss far out of its range.")


class LossConstant(Rule):
    """The very same loss, bit for bit, at step after step."""

    id: ClassVar[str] = "loss-constant"
    in_a_row: ClassVar[Count] = 10
    """Losses. In bfloat16 a few in a row are equal by chance."""

    value: float = math.nan
    since: int = -1
    count: int = 0
    first: int = -1
    last: int = -1
    constant: float = math.nan

    def on_step(self, context: Context, view: StepView) -> None:
        value = view.loss
        if value is None:
            return
        if value != self.value or value == 0 or not math.isfinite(value):
            self.value, self.since, self.count = value, view.step, 1
            return
        if max(context.rates.values(), default=0.0) <= 0:
            return
        self.count += 1
        if self.count >= self.in_a_row:
            self.first = self.since if self.first < 0 else self.first
            self.last, self.constant = view.step, value

    def findings(self, context: Context) -> list[Finding]:
        if self.first < 0:
            return []
        return [
            self._report(
                severity="critical",
                during=Span(self.first, self.last, self.count < self.in_a_row),
                where=context.loss.name,
                title=f"{context.loss.name} is {self.constant:.6g}, bit for bit the same since step {self.first}",
                seen=f"The same number in {self.last - self.first + 1} steps",
                expected="A loss that differs from batch to batch",
                remedy="The output does not depend on the batch or on the weights: look for a cut graph, a dead last "
                "layer, a softmax over one output, or a loss of the wrong tensor.",
                value=number(self.constant),
            )
        ]

    def state(self, context: Context) -> RuleState:
        if not context.loss.count:
            return self._state("not enough data", "No training loss was logged yet.")
        if self.first < 0:
            return self._state("ok", "The loss differs from step to step.")
        return self._state(
            "firing" if self.count >= self.in_a_row else "resolved", f"Since {self.first}."
        )
