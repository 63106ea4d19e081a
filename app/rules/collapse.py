"""prediction-collapse: a model that says the same whatever it is asked."""

import math
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Persistence
from trainvitals.app.rules.thresholds import Count, Positive, Share
from trainvitals.hooks.wire.observed import LossCall, Targets

UNEVEN: Final = 0.8
"""Share of the labels in one class from which it is the likeliest answer nearly always, in healthy models, too."""


class Answers(msgspec.Struct):
    """Of one look: how often each class was predicted, and how often it was right."""

    step: int
    predicted: dict[str, int]
    labels: dict[str, float]
    """Not of a real-valued target."""
    spread: float = 0.0
    """Of real-valued predictions, relative to that of the targets."""
    samples: int = 0


class PredictionCollapse(Rule):
    """The model gives one class, or one number, to all samples, although their labels differ."""

    id: ClassVar[str] = "prediction-collapse"
    share: ClassVar[Share] = 0.98
    """Of the samples in the most frequent predicted class; halfway from its share of the labels to all, where that is
    more: with 99 % of the labels in a class it has to be 99.5 %."""
    narrow: ClassVar[Positive] = 0.01
    """Standard deviation of real-valued predictions against that of the targets: what explains a ten-thousandth of
    their variance."""
    samples: ClassVar[Count] = 150
    """Behind a judgement: a model that gives one class to 90 % of the samples seems to give it to 98 % of so few three
    times in 10,000. With 500 a short training in small batches, looked at now and then, would never be judged."""
    looks: ClassVar[Count] = 3
    """Behind a judgement, however large the batches are: each is half as far into the training again as the one
    before."""
    note_after: ClassVar[Count] = 100
    """Steps of it that are worth a note: a fresh model prefers one class, whatever it is shown."""
    warn_after: ClassVar[Count] = 200
    """Steps of it, after which even slow starts are over."""
    critical_after: ClassVar[Count] = 500
    """Steps of it, after which it does not end by itself."""

    recent: list[Answers] = msgspec.field(default_factory=list)
    held: Persistence = msgspec.field(default_factory=Persistence)
    seen: str = ""
    title: str = ""
    uneven: bool = False

    def on_step(self, context: Context, view: StepView) -> None:
        if view.observed is None or context.several_models:
            return
        told = next(filter(None, (_answers(view.step, c) for c in view.observed.losses)), None)
        if told is None:
            return
        self.recent.append(told)
        known = sum(one.samples for one in self.recent)
        while len(self.recent) > self.looks and known - self.recent[0].samples >= self.samples:
            known -= self.recent.pop(0).samples
        if known >= self.samples and len(self.recent) >= self.looks:
            self._judge(view.step, context.warm_up_end)

    def _judge(self, step: int, warm_up_end: int) -> None:
        over = self._of_classes() if self.recent[-1].labels else self._of_numbers()
        fired = self.held.fired and not self.held.resolved
        self.held.update(step, over, calm=not over, k=1, n=1)
        if over and not fired:
            self.held.onset = self.recent[0].step
        if over:  # a model hardly moves before the end of a warm-up
            self.held.onset = max(self.held.onset, min(warm_up_end, step))

    def _of_classes(self) -> bool:
        predicted, labels = (
            _total([a.predicted for a in self.recent]),
            _total([a.labels for a in self.recent]),
        )
        count, of = sum(predicted.values()), sum(labels.values())
        if len([number for number in labels.values() if number > 0.5]) < 2 or not count:
            return False
        top = max(predicted, key=lambda name: predicted[name])
        share, prior = predicted[top] / count, max(labels.values()) / of
        if share <= max(self.share, (1 + prior) / 2):
            return False
        self.uneven = prior >= UNEVEN
        self.title = f"The model says class {top} to {100 * share:.3g} % of the samples"
        self.seen = (
            f"{predicted[top]:.0f} of {count:.0f} predictions, {100 * labels.get(top, 0.0) / of:.3g} % of the labels; "
            f"there are {len(labels)} classes"
        )
        return True

    def _of_numbers(self) -> bool:
        spread = max(one.spread for one in self.recent)
        if spread >= self.narrow:
            return False
        self.uneven = False
        self.title = "The model says nearly the same number to all samples"
        self.seen = f"Predictions vary by {spread:.2g} of what the targets vary by"
        return True

    @property
    def length(self) -> int:
        """Steps of it so far."""
        return self.held.last - self.held.onset + 1 if self.held.fired else 0

    def _severity(self, context: Context) -> Severity:
        if self.uneven:
            return "info"
        whole = context.ended and self.length >= 0.8 * context.steps and not self.held.resolved
        if self.length >= self.critical_after or whole:
            return "critical"
        return "warning" if self.length >= self.warn_after else "info"

    def findings(self, context: Context) -> list[Finding]:
        if self.length < self.note_after:
            return []
        return [
            self._report(
                severity=self._severity(context),
                during=self.held.span,
                where="the model's output",
                title=f"{self.title}, since step {self.held.onset}",
                seen=self.seen,
                expected="Predictions that differ as the labels do",
                remedy="Look at what the loss rewards: class weights that are the wrong way round or zero, labels that "
                "do not belong to their inputs, a mask that hides a class. Then the head (a bias far from the class "
                "shares) and a learning rate so high that all units are dead. Where classes are uneven: weights, a "
                "sampler, or a threshold of its own.",
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if context.several_models:
            return self._state("not applicable", "Several models play against each other.")
        if not self.held.count:
            return self._state(
                "not enough data",
                f"Judged from {self.samples} samples in {self.looks} looks on, with one label a sample.",
            )
        return self._state("ok", "Predictions differ.")


def _answers(step: int, call: LossCall) -> Answers | None:
    """What a loss call tells of predictions beside their targets; None where it tells nothing."""
    targets = call.targets
    if targets is None:
        return None
    if call.predicted:
        labels = _labels(targets)
        count = sum(call.predicted.values())
        return Answers(step, call.predicted, labels, samples=count) if labels else None
    if call.spread is None or not targets.real or not targets.std or not math.isfinite(call.spread):
        return None
    return Answers(step, {}, {}, call.spread / targets.std, targets.count)


def _labels(targets: Targets) -> dict[str, float]:
    """How often each class is right; empty where the targets are no classes."""
    if not targets.real:
        return {name: float(count) for name, count in targets.classes.items()}
    mean, std = targets.mean, targets.std
    if mean is None or std is None or targets.low is None or targets.high is None:
        return {}
    if (
        targets.low < 0
        or targets.high > 1
        or abs(std - math.sqrt(max(mean * (1 - mean), 0))) > 1e-3
    ):
        return {}  # shares, not zeros and ones
    return {"0": (1 - mean) * targets.count, "1": mean * targets.count}


def _total(parts: list[dict[str, float]] | list[dict[str, int]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0.0) + count
    return total
