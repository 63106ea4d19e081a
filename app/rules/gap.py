"""generalisation-gap: a training that is ever further ahead of its validation."""

import math
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import NOT_TRAINING, Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.statistics import Curve, Persistence, number, theil_sen
from trainvitals.app.rules.thresholds import Count, Positive
from trainvitals.app.rules.validation import NAMES, is_validation_loss

SHARES: Final = ("acc", "f1", "auc", "precision", "recall", "iou", "dice", "top1", "top5")
"""Parts of the names of metrics between 0 and 1, of which more is better."""


class Ahead(msgspec.Struct):
    """One measure of the validation beside the same of the training."""

    gaps: list[float] = msgspec.field(default_factory=list)
    """Of the last evaluations: how much better the training is, in shares of what there is to gain."""
    total: float = 0.0
    count: int = 0
    """Of the training's own values since the last evaluation."""
    held: Persistence = msgspec.field(default_factory=Persistence)
    curve: Curve = msgspec.field(default_factory=Curve)
    widest: float = 0.0
    start: float = 0.0
    """The gap before it began to widen."""


class GeneralisationGap(Rule):
    """A badge, never an alarm: nearly every training to a low loss opens a gap, and many end at their best with one.

    What is a fault of it is judged by `overfitting`, where the validation itself gets worse.
    """

    id: ClassVar[str] = "generalisation-gap"
    gap: ClassVar[Positive] = 0.1
    """Of an accuracy or another share, training above validation; of a loss in units of the loss of the start, which is
    what guessing costs. Below a tenth it is in every healthy training."""
    widening: ClassVar[Count] = 5
    """Evaluations over which it must widen: a gap that stays is a matter of the data's size."""

    series: dict[str, Ahead] = msgspec.field(default_factory=dict)

    def on_step(self, context: Context, view: StepView) -> None:
        for name, ahead in self.series.items():
            value = view.loss if is_validation_loss(name) else _training_value(name, view.scalars)
            if value is not None and math.isfinite(value):
                ahead.total += value
                ahead.count += 1
        for name, value in view.scalars.items():
            if math.isfinite(value) and (is_validation_loss(name) or _is_share_of_validation(name)):
                if name in self.series or len(self.series) < NAMES:
                    ahead = self.series.setdefault(name, Ahead())
                    self._evaluated(context, name, ahead, value, view.step)

    def _evaluated(
        self, context: Context, name: str, ahead: Ahead, value: float, step: int
    ) -> None:
        if not ahead.count:
            return
        training, ahead.total, ahead.count = ahead.total / ahead.count, 0.0, 0
        gap = training - value
        if is_validation_loss(name):
            if not context.loss.initial > 0:
                return
            gap = -gap / context.loss.initial
        ahead.gaps = [*ahead.gaps[-self.widening :], gap]
        ahead.curve.add(step, gap)
        last = ahead.gaps
        widens = (
            len(last) > self.widening and theil_sen(np.array(last)) > 0 and last[-1] == max(last)
        )
        over = widens and gap > self.gap
        if over and not ahead.held.fired:
            ahead.start = last[0]
        ahead.held.update(step, over, calm=gap < self.gap / 2, k=1, n=3)
        ahead.widest = max(ahead.widest, gap) if over else ahead.widest

    def findings(self, context: Context) -> list[Finding]:
        fired = {name: ahead for name, ahead in self.series.items() if ahead.held.fired}
        if not fired:
            return []
        name, ahead = min(fired.items(), key=lambda item: (item[1].held.onset, item[0]))
        unit = " % of the first loss" if is_validation_loss(name) else " points"
        return [
            self._report(
                severity="info",
                during=ahead.held.span,
                where=name,
                title=f"The training is ahead of {name} by {100 * ahead.widest:.3g}{unit}, and more each "
                f"time, since step {ahead.held.onset}",
                seen=f"{100 * ahead.start:.3g}{unit} at first, then {100 * ahead.widest:.3g}",
                expected=f"Up to {100 * self.gap:g}{unit}, or a gap that stays as it is",
                remedy="More data or augmentation first; then weight decay, dropout, a smaller model, smaller batches. "
                "While the validation itself still gets better, nothing needs to be done.",
                gap=number(ahead.widest),
                curve=ahead.curve.evidence(f"Training ahead of {name}", None, self.gap),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if not self.series:
            return self._state("not applicable", "No validation loss or share is logged.")
        if max(len(ahead.gaps) for ahead in self.series.values()) <= self.widening:
            return self._state(
                "not enough data",
                f"Judged after {self.widening + 1} evaluations beside values of the training.",
            )
        return self._state("ok", "The validation keeps up with the training.")


def _is_share_of_validation(name: str) -> bool:
    low = name.lower()
    return low.startswith(NOT_TRAINING) and any(part in low for part in SHARES)


def _training_value(name: str, scalars: dict[str, float]) -> float | None:
    """What the training has of the measure that the validation has under `name`: `train/acc` for `val/acc`."""
    measure = _measure(name)
    found = (
        value
        for other, value in scalars.items()
        if other.lower().startswith("train") and _measure(other) == measure
    )
    return next(found, None)


def _measure(name: str) -> str:
    """A name without the split that it is of."""
    return name.lower().lstrip("abcdefghijklmnopqrstuvwxyz").lstrip("/_-. ")
