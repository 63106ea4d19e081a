"""activation-scale-depth, gradient-exploding-depth, activation-drift, weight-norm-growth: sizes that run away."""

import math
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule, listing
from trainvitals.app.rules.context import Context, StepView, Table
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.gradients import COMPARABLE
from trainvitals.app.rules.layerwise import LayerRule, layers_of
from trainvitals.app.rules.saturation import MATRIX
from trainvitals.app.rules.statistics import (
    Curve,
    Persistence,
    commonest,
    median,
    number,
    theil_sen,
)
from trainvitals.app.rules.thresholds import Count, Positive


class Trend(msgspec.Struct):
    """A size over the depth."""

    slope: float
    """Decades per layer, in forward order."""
    span: float
    """Decades between the largest and the smallest."""
    layers: list[str]


class DepthRule(Rule):
    """A size that grows or shrinks by a constant factor from layer to layer."""

    held: Persistence = msgspec.field(default_factory=Persistence)
    curve: Curve = msgspec.field(default_factory=Curve)
    worst: Trend | None = None
    samples: int = 0
    comparable: int = 0

    slope: ClassVar[float]
    span: ClassVar[float]

    def _judge(self, step: int, trend: Trend | None, over: bool) -> None:
        if trend is None:
            return
        self.samples += 1
        self.curve.add(step, trend.slope)
        calm = abs(trend.slope) < self.slope / 2 or trend.span < self.span / 2
        self.held.update(step, over, calm=calm, k=3, n=5)
        if over and (self.worst is None or abs(trend.slope) > abs(self.worst.slope)):
            self.worst = trend

    def state(self, context: Context) -> RuleState:
        if self.samples:
            return self._held(self.held, "Sizes keep within a narrow range through the depth.")
        if self.comparable and self.comparable < COMPARABLE:
            return self._state(
                "not applicable",
                f"Needs {COMPARABLE} comparable layers; the model has {self.comparable}.",
            )
        return self._state("not enough data", "No comparable layers were sampled yet.")


class ActivationScaleDepth(DepthRule):
    """Outputs of comparable layers grow or shrink by a constant factor a layer, over decades in all."""

    id: ClassVar[str] = "activation-scale-depth"
    slope: ClassVar[Positive] = 0.15
    """Decades a layer. He initialisation gives 0.00, PyTorch's default without biases -0.40."""
    span: ClassVar[Positive] = 2.0
    """Decades between the largest and the smallest: a slope over few layers ends in no such distance."""

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.activations:
            trend = self._trend(table)
            over = trend is not None and abs(trend.slope) > self.slope and trend.span >= self.span
            self._judge(view.step, trend, over)

    def _trend(self, table: Table) -> Trend | None:
        rows = table.group.rows
        types = [row.type for row in rows if row.type.startswith(MATRIX)]
        kind, self.comparable = commonest(types)
        # The head is of another width and makes numbers of another meaning.
        places = [index for index, row in enumerate(rows) if row.type == kind][:-1]
        size = table.column("rms")[places]
        size = np.where(size > 1e-30, size, np.nan)
        if np.count_nonzero(np.isfinite(size)) < COMPARABLE:
            return None
        known = np.isfinite(size)
        level = np.log10(size[known])
        names = [rows[place].name for place in np.array(places)[known]]
        return Trend(theil_sen(level), float(level.max() - level.min()), names)

    def findings(self, context: Context) -> list[Finding]:
        worst = self.worst
        if not self.held.fired or worst is None:
            return []
        way = "grow" if worst.slope > 0 else "shrink"
        onset = self.held.onset
        return [
            self._report(
                severity="warning",
                during=self.held.span,
                layers=worst.layers,
                title=f"{listing(worst.layers)}: activations {way} {10 ** abs(worst.slope):.2g} times a layer, "
                f"{worst.span:.1f} decades in all, since step {onset}",
                seen=f"{worst.slope:+.2f} decades a layer, {worst.span:.1f} in all",
                expected=f"Within {self.slope:g} decades a layer; He initialisation gives 0.00",
                remedy="Initialise for the activation in use (He for ReLU, Glorot for tanh), put a norm layer "
                "after each linear one, or scale residual branches by 1/√depth.",
                slope=number(worst.slope),
                span=number(worst.span),
                curve=self.curve.evidence("Decades per layer", -self.slope, self.slope),
            )
        ]


class GradientExplodingDepth(DepthRule):
    """Gradient over weight grows by a constant factor a layer towards the input."""

    id: ClassVar[str] = "gradient-exploding-depth"
    slope: ClassVar[Positive] = 0.3
    """Decades a layer. Healthy He-ReLU and tanh stacks of 4 to 32 layers stay within 0.02."""
    span: ClassVar[Positive] = 3.0
    """Decades in all: one learning rate then suits no two ends of the net."""

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.parameters:
            trend = self._trend(table)
            over = trend is not None and trend.slope < -self.slope and trend.span >= self.span
            self._judge(view.step, trend, over)

    def _trend(self, table: Table) -> Trend | None:
        group = table.group
        gradient, weight = table.column("grad_rms"), table.column("weight_rms")
        rows = np.flatnonzero(group.matrix & ~group.head)
        types = [group.rows[row].type for row in rows]
        kind, self.comparable = commonest(types)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.log10(gradient / weight)
        places = [
            r for r, name in zip(rows, types, strict=True) if name == kind and np.isfinite(level[r])
        ]
        if len(places) < COMPARABLE:
            return None
        found = level[places]
        layers = [group.rows[place].layer for place in places]
        return Trend(theil_sen(found), float(found.max() - found.min()), layers)

    def findings(self, context: Context) -> list[Finding]:
        worst = self.worst
        if not self.held.fired or worst is None:
            return []
        onset = self.held.onset
        return [
            self._report(
                severity="warning",
                during=self.held.span,
                layers=worst.layers,
                title=f"{listing(worst.layers)}: gradients grow {10**-worst.slope:.2g} times a layer towards the "
                f"input since step {onset}",
                seen=f"{-worst.slope:.2f} decades a layer, {worst.span:.1f} in all",
                expected=f"Within {self.slope:g} decades a layer",
                remedy="Make the initial weights smaller (He or Glorot), add norm layers or residual connections, "
                "and clip the global gradient norm.",
                slope=number(-worst.slope),
                span=number(worst.span),
                curve=self.curve.evidence("Decades per layer", -self.slope, self.slope),
            )
        ]


GROWN: Final = 0.577
"""RMS of PyTorch's own start times √fan-in: weights that start below it grow by design."""


class WeightNormGrowth(LayerRule):
    """Weights many times as large as at the start."""

    id: ClassVar[str] = "weight-norm-growth"
    note: ClassVar[Positive] = 10.0
    """Times the start, or PyTorch's own start where that is larger. Below that, growing is what weights do."""
    warn: ClassVar[Positive] = 100.0
    """The same: two decades change what a learning rate means."""

    start: dict[str, float] = msgspec.field(default_factory=dict)

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.parameters:
            group, size = table.group, table.column("weight_rms")
            size[~group.matrix] = math.nan
            usual = GROWN / np.sqrt(group.fan_in)
            for index in np.flatnonzero(np.isfinite(size)):
                self.start.setdefault(group.rows[index].name, float(max(size[index], usual[index])))
            first = np.array([self.start.get(row.name, math.nan) for row in group.rows])
            ratio = size / first
            self._take(view.step, table, ratio, ratio > self.note, ratio < self.note / 2, k=2, n=3)

    def findings(self, context: Context) -> list[Finding]:
        shown = self._shown()
        if not shown:
            return []
        shown.sort(key=lambda entry: -entry[1].worst)
        _, row = shown[0]
        onset = min(row.held.onset for _, row in shown)
        severity: Severity = "warning" if row.worst > self.warn else "info"
        return [
            self._report(
                severity=severity,
                during=self._span(shown),
                layers=layers_of(shown),
                title=f"{row.layer}: weights have grown to {row.worst:.3g} times their size since step {onset}",
                seen=f"RMS of the weights {row.worst:.3g} times that of the start",
                expected=f"Under {self.note:g} times",
                remedy="Lower the learning rate, add weight decay, clip gradients; look for code that changes weights "
                "outside the optimizer.",
                ratio=number(row.worst),
                curve=row.curve.evidence(
                    f"Weights of {row.layer}, of their start", None, self.note
                ),
            )
        ]


BASE: Final = 3
"""Samples that make a layer's baseline."""


class ActivationDrift(LayerRule):
    """A hidden layer's output leaves the range it had early in this run, while the loss gets worse."""

    id: ClassVar[str] = "activation-drift"
    warn: ClassVar[Positive] = 10.0
    """Times the run's own baseline, up or down. Outputs grow tenfold in healthy nets that start small, but
    then the loss falls."""
    start: ClassVar[Count] = 20
    """Steps, after the warm-up, before the baseline is taken."""

    first: dict[str, list[float]] = msgspec.field(default_factory=dict)
    """The first sizes of each layer, until there are `BASE` of them."""
    base: dict[str, float] = msgspec.field(default_factory=dict)
    """Their median."""

    def on_step(self, context: Context, view: StepView) -> None:
        if view.step < context.warm_up_end + self.start:
            return
        for table in view.activations:
            self._sample(context, view.step, table)

    def _sample(self, context: Context, step: int, table: Table) -> None:
        rows, size = table.group.rows, table.column("rms")
        last = max((i for i, row in enumerate(rows) if row.type.startswith(MATRIX)), default=0)
        size[last:] = math.nan
        size[~(size > 1e-3)] = math.nan
        base = np.array([self.base.get(row.name, math.nan) for row in rows])
        for index in np.flatnonzero(np.isfinite(size) & np.isnan(base)):
            self._learn(rows[index].name, float(size[index]))
        ratio = size / base
        ratio = np.maximum(ratio, 1 / ratio)
        worse = (ratio > self.warn) & context.loss.worse
        self._take(step, table, ratio, worse, ratio < self.warn / 2, k=2, n=3)

    def _learn(self, name: str, size: float) -> None:
        sizes = self.first.setdefault(name, [])
        sizes.append(size)
        if len(sizes) == BASE:
            self.base[name] = median(self.first.pop(name))

    def findings(self, context: Context) -> list[Finding]:
        shown = self._shown()
        if not shown:
            return []
        first, row = shown[0]
        onset = row.held.onset
        return [
            self._report(
                severity="warning",
                during=self._span(shown),
                layers=[name for name, _ in shown],
                title=f"{first}: activations left their usual size by {row.worst:.3g} times since step {onset}",
                seen=f"{row.worst:.3g} times off the median of this run's first samples, and the loss rose",
                expected=f"Within {self.warn:g} times",
                remedy=f"Look at the weights of and before {first}. Lower the learning rate, add a norm layer, go back "
                "to a checkpoint before this step.",
                ratio=number(row.worst),
                baseline=number(self.base[first]),
                clear=row.held.clear if row.held.clear >= 0 else onset,
                curve=row.curve.evidence(f"Size of {first}, of its baseline", None, self.warn),
            )
        ]
