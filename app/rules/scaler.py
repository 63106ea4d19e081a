"""amp-skip-storm: a gradient scaler that skips step after step."""

import math
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Curve, Span, number
from trainvitals.app.rules.thresholds import Count, Positive, Share

BACKOFF: Final = 2.0
"""What a scaler divides its scale by at each step that it skips, unless it was told otherwise."""
WINDOW: Final = 200
"""Steps, those that were skipped among them, over which their share is taken."""


class AmpSkipStorm(Rule):
    """Single skipped steps are how a scaler finds its scale; many mean that gradients overflow float16 for good."""

    id: ClassVar[str] = "amp-skip-storm"
    share: ClassVar[Share] = 0.05
    """Of the last 200 steps. The scale is tried one step higher every 2,000 steps and taken back: 0.05 % is normal, and
    this is a hundred times as much."""
    in_a_row: ClassVar[Count] = 10
    """Skipped steps with none between them: ten halvings take a scale of 65,536 down to 64."""
    scale: ClassVar[Positive] = 1.0
    """A scale below it means that gradients are beyond 65,504, the largest number of float16, as they are."""
    settle: ClassVar[Count] = 100
    """First steps in which a scaler comes down from its start; neither share nor row count then."""

    at: float = math.nan
    """The scale as it was last told."""
    first: int = -1
    """Step at which it was told first."""
    skipped: int = 0
    """Steps skipped since then."""
    skips: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """Skips within the last `WINDOW` steps: what number of step it was, by our count, and its step."""
    row: int = 0
    """Skipped steps one after the other."""
    longest: int = 0
    last_skip: int = -1
    most: float = 0.0
    """Largest share so far."""
    onset: int = -1
    last: int = -1
    critical: bool = False
    low: float = math.inf
    curve: Curve = msgspec.field(default_factory=Curve)

    def on_step(self, context: Context, view: StepView) -> None:
        now = view.scalars.get("tv/amp_scale")
        if now is None or not math.isfinite(now) or now < 0:
            return
        if self.first < 0:
            self.first = view.step
        self.curve.add(view.step, math.log2(max(now, 2.0**-149)))
        before, self.at = self.at, now
        if now < before:
            halvings = round(math.log(before / max(now, 2.0**-149), BACKOFF))
            self._skipped(view.step, max(halvings, 1), now)

    def _skipped(self, step: int, times: int, scale: float) -> None:
        # A step that is skipped does not count: the next one has its number. A fused optimizer's does.
        self.row = (self.row if step - self.last_skip <= 1 and self.last_skip >= 0 else 0) + times
        self.last_skip = step
        self.skipped += times
        taken = step - self.first + self.skipped
        self.skips = [entry for entry in self.skips if entry[0] > taken - WINDOW]
        self.skips = [*self.skips, *[(taken, step)] * times][-WINDOW:]
        settled = taken > self.settle
        share = len(self.skips) / WINDOW
        overflow = scale < self.scale
        row = settled and self.row >= self.in_a_row
        if overflow or row or (settled and share > self.share):
            if self.onset < 0:
                self.onset = self.skips[0][1]
            self.critical |= overflow or row
            self.last = step
            self.most, self.longest = max(self.most, share), max(self.longest, self.row)
            self.low = min(self.low, scale)

    def findings(self, context: Context) -> list[Finding]:
        if self.onset < 0:
            return []
        severity: Severity = "critical" if self.critical else "warning"
        resolved = context.last_step - self.last > WINDOW
        low = f"{self.low:.3g}"
        return [
            self._report(
                severity=severity,
                during=Span(self.onset, self.last, resolved),
                where="the gradient scaler",
                title=f"The gradient scaler has skipped {self.skipped} steps since step {self.onset}, and is down at a "
                f"scale of {low}",
                seen=f"Up to {100 * self.most:.3g} % of {WINDOW} steps, up to {self.longest} in a row; scale of {low}",
                expected=f"Less than {100 * self.share:g} % after the first {self.settle} steps, and a scale of "
                f"{self.scale:g} and more",
                remedy="Gradients overflow float16. Use bfloat16 where the hardware has it; compute the loss and its "
                "reduction in float32, as a mean and not a sum; lower the learning rate; keep the layer whose output "
                "is largest out of autocast. If the loss itself is NaN, look for that first.",
                diff="- with torch.autocast(device, torch.float16):\n+ with torch.autocast(device, torch.bfloat16):",
                skipped=self.skipped,
                scale=number(self.low),
                curve=self.curve.evidence("log2 of the scale", math.log2(self.scale), None),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if self.first < 0:
            return self._state("not applicable", "No gradient scaler was used.")
        return self._state("ok", f"{self.skipped} steps skipped; the scale is {self.at:.3g}.")
