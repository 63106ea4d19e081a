"""loss-oscillation: steps that leap to and fro over a valley, and a loss that stays in a band."""

import math
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Curve, Persistence, number, theil_sen
from trainvitals.app.rules.thresholds import Count, Share

LOSSES: Final = 50
"""In a stretch where the length of an epoch is not known."""
LEAST: Final = 20
"""Losses that a stretch has at least."""
KEEPS: Final = 0.8
"""Share of the amplitude of the first stretch that the last one must still have: a band that does not narrow."""
LEVEL: Final = 0.01
"""Share of the loss that a stretch may be below the one before: a fall of less is none."""
CHANGES: Final = 1.5
"""Times by which the learning rate may vary over the stretches: a cycle of it makes a band of its own."""


class Stretch(msgspec.Struct):
    """Losses in a row: an epoch, or as good as."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = 0.0
    """Smallest and largest learning rate."""

    def add(self, value: float, rate: float) -> None:
        """Take the loss of a step."""
        self.count += 1
        self.total += value
        self.squares += value * value
        self.low, self.high = min(self.low, rate), max(self.high, rate)

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def amplitude(self) -> float:
        """Standard deviation over the mean."""
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2)) / self.mean


class LossOscillation(Rule):
    """Two signals: the gradient turns against the momentum, and the loss has a band that neither falls nor narrows.

    The noise of small batches makes the same curve, but not the same steps: its gradients have no direction, and their
    cosine with the mean of those before is 0. Of a valley that is overshot it is well below.
    """

    id: ClassVar[str] = "loss-oscillation"
    against: ClassVar[Share] = 0.3
    """Cosine between the gradient and the mean of those before, with its sign turned. Noise gives 0; a stationary
    momentum as short as a single gradient 0.45 at μ = 0.9."""
    amplitude: ClassVar[Share] = 0.1
    """Standard deviation of the losses of a stretch, of their mean: a narrow band costs nothing."""
    long: ClassVar[Count] = 40
    """Batches of an epoch from which on it is a warning. Drawn without replacement, the batches of an epoch add up to
    the whole gradient: of 11 batches the last turn against the mean of those before with a cosine of −0.3 to −0.6 by
    that alone, of 50 with −0.07. Where the length of an epoch is not known it stays an info."""
    stretches: ClassVar[Count] = 5
    """Epochs, or stretches of 50 losses, in which the loss must stay in its band."""

    turned: Persistence = msgspec.field(default_factory=Persistence)
    held: Persistence = msgspec.field(default_factory=Persistence)
    name: str = ""
    size: int = LOSSES
    epoch: int = 0
    """Batches of an epoch, by the training's own loader; 0 where it is not known."""
    parts: list[Stretch] = msgspec.field(default_factory=list)
    negative: bool = False
    worst: float = 0.0
    """The lowest cosine."""
    level: float = math.nan
    wide: float = 0.0
    curve: Curve = msgspec.field(default_factory=Curve)

    def on_step(self, context: Context, view: StepView) -> None:
        loader = view.observed.loader if view.observed is not None else None
        if loader is not None and loader.batches:
            self.epoch, self.size = loader.batches, max(loader.batches, LEAST)
        along = view.scalars.get("tv/grad_along")
        if along is not None and math.isfinite(along):
            self.curve.add(view.step, along)
            over = along < -self.against
            self.turned.update(view.step, over, calm=along > -self.against / 2, k=10, n=20)
            self.worst = min(self.worst, along)
        if view.loss is not None and math.isfinite(view.loss):
            self._take(context, view.step, view.loss)

    def _take(self, context: Context, step: int, value: float) -> None:
        if context.loss.name != self.name:
            self.name, self.parts = context.loss.name, []
        self.negative |= value < 0
        if not self.parts or self.parts[-1].count >= self.size:
            self.parts = [*self.parts[-self.stretches :], Stretch()]
        self.parts[-1].add(value, max(context.rates.values(), default=0.0))
        if self.parts[-1].count >= self.size and len(self.parts) > self.stretches:
            band = self._in_band()
            turned = self.turned.fired and not self.turned.resolved
            self.held.update(step, band and turned, calm=not band or not turned, k=1, n=2)
            if band and turned:
                self.level = self.parts[-1].mean
                self.wide = max(self.wide, self.parts[-1].amplitude)

    def _in_band(self) -> bool:
        parts = self.parts[-self.stretches :]
        means = np.array([part.mean for part in parts])
        if not (means > 0).all() or theil_sen(means) < -LEVEL * float(np.median(means)):
            return False
        if max(part.high for part in parts) > CHANGES * min(part.low for part in parts):
            return False
        wide = [part.amplitude for part in parts]
        return float(np.median(wide)) > self.amplitude and wide[-1] > KEEPS * wide[0]

    def _reason(self, context: Context) -> str:
        """Why it is not applicable; "" when it is."""
        if context.several_models:
            return "Several models are trained against or with each other."
        if self.negative:
            return "The loss takes negative values: no share of it can be told."
        return ""

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired or self._reason(context):
            return []
        first = self.turned.onset
        severity: Severity = "warning" if self.epoch == 1 or self.epoch >= self.long else "info"
        rate = max(context.rates.values(), default=math.nan)
        return [
            self._report(
                severity=severity,
                during=self.held.span._replace(first=first),
                where=self.name,
                title=f"{self.name} oscillates about {self.level:.3g} and falls no more: the steps leap to and fro, "
                f"since step {first}",
                seen=f"The gradient turns against those before it (cosine down to {self.worst:.2f}); the losses vary "
                f"by {100 * self.wide:.3g} %",
                expected=f"A cosine above {-self.against:g}, or a loss that falls",
                remedy="Divide the learning rate by 2 to 5, or let it decay from here on. Else more momentum, or "
                "larger batches.",
                learning_rate=number(rate),
                curve=self.curve.evidence("Gradient along those before it", -self.against, None),
            )
        ]

    def state(self, context: Context) -> RuleState:
        if reason := self._reason(context):
            return self._state("not applicable", reason)
        if not self.turned.count:
            return self._state(
                "not applicable", "No optimizer was seen that keeps a mean of its gradients."
            )
        if not self.held.count:
            return self._state(
                "not enough data",
                f"Judged after {self.stretches + 1} stretches of {self.size} losses.",
            )
        return self._held(self.held, "The loss falls, or its steps go on in one direction.")
