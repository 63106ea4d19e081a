"""gradient-vanishing-depth and gradient-exploding: gradients across layers and over time."""

import math
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule, listing
from trainvitals.app.rules.context import Context, StepView, Table
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import (
    Curve,
    Persistence,
    commonest,
    mad,
    median,
    number,
    theil_sen,
)
from trainvitals.app.rules.thresholds import Positive

COMPARABLE: Final = 4
"""Layers of one type that a slope needs."""


class Slope(msgspec.Struct):
    """How gradients shrink towards the input, over the comparable layers of one sample."""

    slope: float
    span: float
    layers: list[str]
    """All compared layers, in forward order."""
    starved: list[str]
    """Those at least two decades below the best fed one, nearest to the input first."""


class GradientVanishingDepth(Rule):
    """Gradient over weight, layer by layer: a steady fall towards the input starves early layers.

    The absolute size of a gradient says nothing (it scales with the loss), its fall with depth does.
    """

    id: ClassVar[str] = "gradient-vanishing-depth"
    slope: ClassVar[Positive] = 0.3
    """Decades per layer. Healthy He-ReLU and tanh stacks of 4 to 32 layers stay within 0.02; sigmoid stacks show 0.4 to
    0.8."""
    span: ClassVar[Positive] = 3.0
    """Decades between the best and the worst fed layer: what a few layers lose is no fault."""

    held: Persistence = msgspec.field(default_factory=Persistence)
    curve: Curve = msgspec.field(default_factory=Curve)
    worst: Slope | None = None
    samples: int = 0
    comparable: int = 0

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.parameters:
            slope = self._slope(table)
            if slope is None:
                continue
            self.samples += 1
            self.curve.add(view.step, slope.slope)
            vanishing = slope.slope > self.slope and slope.span >= self.span
            calm = slope.slope < self.slope / 2 or slope.span < self.span / 2
            self.held.update(view.step, vanishing, calm=calm, k=3, n=5)
            if vanishing and (self.worst is None or slope.slope > self.worst.slope):
                self.worst = slope

    def _slope(self, table: Table) -> Slope | None:
        """Of the most numerous type of layer; None when too few layers can be compared."""
        group = table.group
        gradient, weight = table.column("grad_rms"), table.column("weight_rms")
        deep = np.flatnonzero(group.matrix & ~group.head)
        _, self.comparable = commonest(group.rows[index].type for index in deep)
        rows = deep[np.isfinite(gradient[deep]) & (weight[deep] > 1e-8)]
        types = [group.rows[index].type for index in rows]
        kind, comparable = commonest(types)
        if comparable < COMPARABLE:
            return None
        rows = np.array([row for row, name in zip(rows, types, strict=True) if name == kind])
        ratio = gradient[rows] / weight[rows]
        fed = ratio > 0
        # Zeros alone are a dead or detached layer. Below layers whose gradients already fall
        # they are the same fall, gone under the smallest number that float32 can hold.
        if np.count_nonzero(fed) < COMPARABLE:
            return None
        level = np.full(len(rows), -45.0)
        level[fed] = np.log10(ratio[fed])
        best = float(level.max())
        low = level < best - 2
        layers = [group.rows[row].layer for row in rows]
        return Slope(
            slope=theil_sen(level[fed]),
            span=best - float(level[fed].min()),
            layers=layers,
            starved=[name for name, starved in zip(layers, low, strict=True) if starved],
        )

    def findings(self, context: Context) -> list[Finding]:
        worst = self.worst
        if not self.held.fired or worst is None:
            return []
        loss = context.loss
        flat = loss.count >= 100 and loss.slow > 0.9 * loss.initial
        onset = self.held.onset
        per_layer = 10**worst.slope
        return [
            self._report(
                severity="critical" if flat else "warning",
                during=self.held.span,
                layers=worst.starved,
                seen=f"Gradient over weight falls by {worst.slope:.2f} decades per layer "
                f"(×1/{per_layer:.2g}) towards the input, {worst.span:.1f} decades in all, over "
                f"{listing(worst.layers)}",
                expected=f"Within {self.slope:g} decades per layer; healthy stacks stay within "
                "0.02",
                slope=number(-worst.slope),
                span=number(worst.span),
                compared=worst.layers[:50],
                curve=self.curve.evidence("Decades per layer", -self.slope, self.slope),
                title=f"Hardly any gradient reaches {listing(worst.starved)}: it shrinks {worst.slope:.2f} decades "
                f"per layer towards the input, since step {onset}",
                remedy="Replace sigmoid or tanh by ReLU or GELU with He initialisation; put a norm "
                "layer after each linear one, or add residual connections. A higher learning rate "
                "does not help: the early layers are starved, not slow.",
            )
        ]

    def state(self, context: Context) -> RuleState:
        if self.samples:
            return self._held(self.held, "Gradients keep their size through the depth.")
        if self.comparable and self.comparable < COMPARABLE:
            return self._state(
                "not applicable",
                f"Needs {COMPARABLE} comparable layers; the model has {self.comparable}.",
            )
        return self._state("not enough data", "No gradients of comparable layers were sampled yet.")


WINDOW: Final = 200
WARM_UP: Final = 20
APART: Final = 20
START: Final = 3.0
"""Decades that count before there is a usual norm: no healthy start grows a thousandfold."""
GIVEN_BACK: Final = 0.25
"""Share of the loss's fall that must be lost again. Gradients also grow when a net leaves a
plateau or fits its last samples; then the loss falls, and it is no fault."""


class GradientExploding(Rule):
    """The global gradient norm leaves its usual range, and the loss suffers from it."""

    id: ClassVar[str] = "gradient-exploding"
    jump: ClassVar[Positive] = 1.0
    """Decades over the running median: a gradient norm ten times the usual one."""
    noise: ClassVar[Positive] = 7.0
    """Median absolute deviations over the running median. At 5, heavy-tailed gradients of healthy runs alarm; single
    outliers of up to 1000 times are normal, hence three of twenty as well."""

    held: Persistence = msgspec.field(default_factory=Persistence)
    usual: list[float] = msgspec.field(default_factory=list)
    """log10 of the last norms that were not over the limit."""
    strangers: int = 0
    """Norms in a row that were."""
    curve: Curve = msgspec.field(default_factory=Curve)
    peak: float = -math.inf
    baseline: float = math.nan
    hurt: bool = False
    fatal: bool = False
    windows: int = 0
    """Stretches of `APART` steps with a norm over the limit."""
    window: int = -1
    """Number of the last of them."""

    def on_step(self, context: Context, view: StepView) -> None:
        norm = view.scalars.get("tv/grad_norm")
        if self.held.fired and not self.fatal:
            bad = [value for value in (norm, view.loss) if value is not None]
            self.fatal = view.step <= self.held.last + 20 and not all(map(math.isfinite, bad))
        if norm is None or not math.isfinite(norm) or norm <= 0:
            return
        level = math.log10(norm)
        self.curve.add(view.step, level)
        usual = median(self.usual)
        limit = self._limit(usual)
        over = level > limit
        calm = not self.usual or level - usual < (limit - usual) / 2
        self.held.update(view.step, over, calm=calm, k=3, n=20)
        if over:
            self.strangers += 1
            self.windows += view.step // APART != self.window
            self.window = view.step // APART
            self.baseline = usual if math.isnan(self.baseline) else self.baseline
            self.peak = max(self.peak, level)
            hurt = context.loss.regained > GIVEN_BACK
            self.hurt |= hurt or (not context.loss.count and level > limit + 1)
        else:
            self.strangers = 0
        if not over or self.strangers > WINDOW:
            self.usual = [*self.usual[-WINDOW + 1 :], level]

    def _limit(self, usual: float) -> float:
        """Of the level, where `usual` is the median of the usual ones."""
        if not self.usual:
            return math.inf
        if len(self.usual) < WARM_UP:
            return usual + START
        return usual + max(self.jump, self.noise * mad(self.usual))

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired:
            return []
        severity: Severity = "critical" if self.fatal else "warning" if self.hurt else "info"
        onset = self.held.onset
        times = 10 ** (self.peak - self.baseline)
        return [
            self._report(
                severity=severity,
                during=self.held.span,
                seen=f"Global gradient norm up to {10**self.peak:.3g}, {times:.3g} times the "
                f"usual {10**self.baseline:.3g}",
                expected=f"Within ×{10**self.jump:g} of the running median",
                where="the whole model",
                peak=number(10**self.peak),
                usual=number(10**self.baseline),
                windows=self.windows,
                curve=self.curve.evidence(
                    "log10 of the gradient norm",
                    None,
                    number_or_none(self.baseline + self.jump),
                ),
                title=f"Gradient norm rose to {times:.2g} times its usual size since step {onset}",
                remedy=f"Clip the global gradient norm at about {2 * 10**self.baseline:.2g} (twice "
                "its median), lower the learning rate by 3, and look at the batches of these "
                "steps: a broken sample or label does this too.",
                diff="+ torch.nn.utils.clip_grad_norm_(model.parameters(), "
                f"{2 * 10**self.baseline:.2g})\n  optimizer.step()",
            )
        ]

    def state(self, context: Context) -> RuleState:
        if self.held.count < 5:
            return self._state("not enough data", "Fewer than 5 gradient norms so far.")
        return self._held(self.held, "The gradient norm stays in its usual range.")


def number_or_none(value: float) -> float | None:
    """`value` for a band, None when there is none."""
    return value if math.isfinite(value) else None
