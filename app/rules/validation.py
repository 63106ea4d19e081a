"""overfitting and val-constant: what the losses of the validation tell."""

import itertools
import math
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import NOT_TRAINING, Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Curve, Span, median, number
from trainvitals.app.rules.thresholds import Count, Positive

NAMES: Final = 8
"""Validation losses that are watched at most."""


def is_validation_loss(name: str) -> bool:
    """Whether a scalar of this name is a loss on other data than the training's."""
    return name.lower().startswith(NOT_TRAINING) and name.lower().endswith("loss")


class Evaluations(msgspec.Struct):
    """One validation loss so far, at most 400 values; older ones are thinned."""

    steps: list[int] = msgspec.field(default_factory=list)
    values: list[float] = msgspec.field(default_factory=list)
    training: list[float] = msgspec.field(default_factory=list)
    """Mean training loss since the evaluation before."""

    def add(self, step: int, value: float, training: float) -> None:
        """Take a finite value."""
        if len(self.steps) == 400:
            for series in (self.steps, self.values, self.training):
                del series[1:200:2]
        self.steps.append(step)
        self.values.append(value)
        self.training.append(training)

    @property
    def noise(self) -> float:
        """Standard deviation of an evaluation on the scale of logarithms, by successive differences."""
        logs = [math.log(value) for value in self.values if value > 0]
        steps = [abs(two - one) for one, two in itertools.pairwise(logs)]
        return 1.4826 * median(steps) / math.sqrt(2) if steps else math.nan


class Overfitting(Rule):
    """The validation loss rises from its best by more than its noise while the training loss still falls."""

    id: ClassVar[str] = "overfitting"
    note: ClassVar[Positive] = 0.02
    """Rise of the logarithm, at least. Rules of one epoch or of a gap of a tenth fire in every healthy run."""
    warn: ClassVar[Positive] = 0.2
    """The same: a rise of a few percent late in a training to zero loss is usual."""
    noise: ClassVar[Positive] = 3.0
    """Standard deviations of an evaluation, as successive ones show them: a rise must exceed both."""
    since: ClassVar[Count] = 3
    """Evaluations since the best one: fewer make no trend."""

    series: dict[str, Evaluations] = msgspec.field(default_factory=dict)
    total: float = 0.0
    count: int = 0
    onset: int = -1
    last: int = -1
    name: str = ""
    rise: float = 0.0
    risen: bool = False

    def on_step(self, context: Context, view: StepView) -> None:
        if view.loss is not None and math.isfinite(view.loss):
            self.total += view.loss
            self.count += 1
        for name, value in view.scalars.items():
            if not is_validation_loss(name) or not math.isfinite(value):
                continue
            if name in self.series or len(self.series) < NAMES:
                mean = self.total / self.count if self.count else math.nan
                self.series.setdefault(name, Evaluations()).add(view.step, value, mean)
                self.total, self.count = 0.0, 0
                self._judge(name, self.series[name], view.step)

    def _judge(self, name: str, series: Evaluations, step: int) -> None:
        values = series.values
        smooth = [median(values[max(0, i - 1) : i + 2]) for i in range(len(values))]
        best = min(range(len(smooth)), key=smooth.__getitem__)
        after = len(values) - 1 - best
        if after < self.since or smooth[best] <= 0:
            self.risen = self.risen and name != self.name
            return
        rise = math.log(median(values[-3:]) / smooth[best])
        falls = median(series.training[-3:]) < series.training[best]
        self.risen = rise > max(self.note, self.noise * series.noise) and falls
        if self.risen:
            self.onset = series.steps[best] if self.onset < 0 or name != self.name else self.onset
            self.last, self.name = step, name
            self.rise = max(self.rise, rise)

    def findings(self, context: Context) -> list[Finding]:
        if self.onset < 0:
            return []
        severity: Severity = "warning" if self.rise > self.warn else "info"
        series, curve = self.series[self.name], Curve()
        for step, value in zip(series.steps, series.values, strict=True):
            curve.add(step, value)
        best = min(series.values)
        return [
            self._report(
                severity=severity,
                during=Span(self.onset, self.last, not self.risen),
                where=self.name,
                title=f"{self.name} has risen by {100 * math.expm1(self.rise):.3g} % from its best at step "
                f"{self.onset} while the training loss falls",
                seen=f"{series.values[-1]:.4g}; its best was {best:.4g}",
                expected=f"Within {100 * self.note:g} % or {self.noise:g} times its noise ({series.noise:.2g})",
                remedy=f"Keep the checkpoint of step {self.onset}. More or augmented data first; then weight decay, "
                "dropout, a smaller model, or stopping there.",
                rise=number(self.rise),
                baseline=number(best),
                curve=curve.evidence(self.name, None, best * (1 + self.note)),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if not self.series:
            return self._state("not applicable", "No validation loss is logged.")
        if max(len(series.values) for series in self.series.values()) <= self.since:
            return self._state("not enough data", f"Judged after {self.since + 1} validations.")
        return self._state("ok", "The validation loss is near its best.")


class ValConstant(Rule):
    """The same validation loss again and again although the weights change."""

    id: ClassVar[str] = "val-constant"
    in_a_row: ClassVar[Count] = 5
    """Validations: in few digits two or three in a row may be equal by chance."""

    values: dict[str, tuple[float, int, int]] = msgspec.field(default_factory=dict)
    """Last value of each name, its first step, and how often it came in a row."""
    name: str = ""
    first: int = -1
    last: int = -1
    constant: float = math.nan

    def on_step(self, context: Context, view: StepView) -> None:
        for name, value in view.scalars.items():
            if not is_validation_loss(name) or not math.isfinite(value):
                continue
            before, since, count = self.values.get(name, (math.nan, view.step, 0))
            if view.step == since and count:
                continue
            same = value != 0 and abs(value - before) <= 1e-6 * abs(before)
            if same:
                self.values[name] = value, since, count + 1
            elif name in self.values or len(self.values) < NAMES:
                self.values[name] = value, view.step, 1
            if same and count + 1 >= self.in_a_row and max(context.rates.values(), default=0.0) > 0:
                self.name, self.last, self.constant = name, view.step, value
                self.first = since if self.first < 0 else self.first

    def findings(self, context: Context) -> list[Finding]:
        if self.first < 0:
            return []
        _, _, count = self.values[self.name]
        return [
            self._report(
                severity="critical",
                during=Span(self.first, self.last, count < self.in_a_row),
                where=self.name,
                title=f"{self.name} is {self.constant:.6g} in every validation since step {self.first}",
                seen=f"{self.constant:.7g} in {count} validations",
                expected="A value that changes while the weights do",
                remedy="The validation looks at a copy of the model that is not trained, at a cached result, or at an "
                "output that has collapsed. Pass the model that the optimizer holds.",
                value=number(self.constant),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if not self.values:
            return self._state("not applicable", "No validation loss is logged.")
        return self._state("ok", "It changes from one validation to the next.")
