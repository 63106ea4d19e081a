"""update-ratio-low and over-regularised: weights that go nowhere, and weights that decay takes away."""

import math
from typing import ClassVar

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView, Table
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.statistics import Curve, Persistence, Span, median, number
from trainvitals.app.rules.thresholds import Count, Positive, Share


class UpdateRatioLow(Rule):
    """Updates so small that ten thousand of them would not change the weights, and the loss does not fall."""

    id: ClassVar[str] = "update-ratio-low"
    limit: ClassVar[Positive] = 1e-5
    """Of the median matrix, at the rate in use. 10,000 steps of it, each in a direction of its own, reach a
    thousandth of the weights. Fine-tuning at 2e-5 has 1.5e-4."""
    after: ClassVar[Count] = 50
    """Steps after the warm-up, in which the loss has had the time to show a fall."""

    per_rate: list[float] = msgspec.field(default_factory=list)
    """Median ratio over learning rate, of the last five samples: a warm-up's samples tell what comes later."""
    curve: Curve = msgspec.field(default_factory=Curve)
    held: Persistence = msgspec.field(default_factory=Persistence)
    least: float = math.inf
    rate: float = math.nan
    samples: int = 0

    def on_step(self, context: Context, view: StepView) -> None:
        rate = max(context.rates.values(), default=0.0)
        if rate <= 0:
            return
        for table in view.parameters:
            ratio = table.column("update_ratio")
            judged = ratio[
                table.group.matrix & np.isfinite(ratio) & (table.column("grad_absmax") > 0)
            ]
            if len(judged):
                self.samples += 1
                middle = float(np.median(judged))
                self.per_rate = [*self.per_rate[-4:], middle / rate]
                self.curve.add(view.step, math.log10(max(middle, 1e-12)))
        loss = context.loss
        settled = view.step >= context.warm_up_end + self.after and rate > 0.01 * context.rate_top
        if len(self.per_rate) < 3 or not settled or view.loss is None:
            return
        ratio_now = median(self.per_rate) * rate
        low = ratio_now < self.limit
        never_fell = loss.flat and loss.best > 0.9 * loss.initial and loss.slow < 2 * loss.initial
        self.held.update(view.step, low and never_fell, calm=not low, k=20, n=20)
        if low:
            self.least, self.rate = min(self.least, ratio_now), rate

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired:
            return []
        onset = max(context.first_step, 0)
        return [
            self._report(
                severity="warning",
                during=Span(onset, self.held.last, self.held.resolved),
                where="the optimizer",
                title=f"Learning rate of {self.rate:.3g} is too low: a step changes the weights by {self.least:.2g} of "
                f"their size, since step {onset}",
                seen=f"Median update ratio {self.least:.2g}, and the loss stands still",
                expected=f"Over {self.limit:g}; healthy trainings have 7e-6 to 0.03",
                remedy="Raise the learning rate by 10 and again until the loss moves (1e-3 for Adam and 0.1 for SGD "
                "are usual starts). Check that the schedule did not end, and that the loss is not scaled down.",
                ratio=number(self.least),
                learning_rate=number(self.rate),
                curve=self.curve.evidence("log10 of the median update ratio", -5.0, None),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if not self.samples:
            return self._state("not enough data", "No update of a weight matrix was sampled yet.")
        return self._state("ok", f"{self.samples} samples; the weights move, or the loss falls.")


class OverRegularised(Rule):
    """Most weights shrink to a fraction of their start, and the loss is held up by it."""

    id: ClassVar[str] = "over-regularised"
    shrunk: ClassVar[Share] = 0.6
    """Of the start, in more than half of the matrices. Decay to its equilibrium does that in healthy runs,
    too: hence the condition on the loss."""

    start: dict[str, float] = msgspec.field(default_factory=dict)
    held: Persistence = msgspec.field(default_factory=Persistence)
    curve: Curve = msgspec.field(default_factory=Curve)
    layers: list[str] = msgspec.field(default_factory=list)
    """Those that had shrunk at the last sample, where most had."""
    shown: list[str] = msgspec.field(default_factory=list)
    began: int = -1
    """Last sample in which the weights had more than 90 % of their first size."""
    samples: int = 0

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.parameters:
            self._sample(view.step, table)
        loss = context.loss
        if view.loss is None or not self.samples or loss.count < 50:
            return
        # Samples may be far apart: the loss is asked at every step what they mean.
        over = bool(self.layers) and (
            loss.flat or loss.slow > max(0.5 * loss.initial, 1.03 * loss.best)
        )
        self.held.update(view.step, over, calm=not self.layers, k=20, n=20)

    def _sample(self, step: int, table: Table) -> None:
        group, size = table.group, table.column("weight_rms")
        rows = np.flatnonzero(group.matrix & np.isfinite(size))
        for row in rows:
            self.start.setdefault(group.rows[row].name, float(size[row]))
        first = np.array([self.start[group.rows[row].name] for row in rows])
        judged = first > 1e-6
        if not judged.any():
            return
        self.samples += 1
        ratio = size[rows][judged] / first[judged]
        middle = float(np.median(ratio))
        self.curve.add(step, middle)
        small = ratio < self.shrunk
        if middle > 0.9 and not self.held.fired:
            self.began = step
        low = rows[judged][small][np.argsort(ratio[small], kind="stable")]
        self.layers = [group.rows[row].layer for row in low] if np.mean(small) > 0.5 else []
        self.shown = self.layers or self.shown

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired:
            return []
        onset = self.began if self.began >= 0 else self.held.onset
        smallest = min(self.curve.values, default=math.nan)
        return [
            self._report(
                severity="warning",
                during=Span(onset, self.held.last, self.held.resolved),
                layers=self.shown,
                title=f"Weights shrink to {smallest:.2g} of their start and the loss does not fall, since step {onset}",
                seen=f"The median matrix has {smallest:.2g} of its first size; loss {context.loss.slow:.3g} of "
                f"{context.loss.initial:.3g} at the start",
                expected=f"Over {self.shrunk:g}, or a loss that falls",
                remedy="Divide weight decay by 10, or the weight of another penalty; then dropout. Under AdamW weights "
                "settle near √(lr / 2·decay).",
                curve=self.curve.evidence(
                    "Weights of the median matrix, of their start", self.shrunk, None
                ),
            )
        ]

    def state(self, context: Context) -> RuleState:
        if not self.samples:
            return self._state("not enough data", "No weight matrix was sampled yet.")
        return self._held(self.held, "Weights keep their size, or the loss falls.")
