"""loss-divergence and loss-stuck-at-prior: a loss that runs away, and one that never starts."""

import math
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Curve, Span, median, number
from trainvitals.app.rules.thresholds import Count, Positive, Share

RUNAWAY: Final = 10.0
"""Times the margin; so far off, `SURE` losses in a row suffice."""
SURE: Final = 5
WINDOW: Final = 200


class LossDivergence(Rule):
    """The smoothed loss doubles over its best, beyond its noise, and does not come back."""

    id: ClassVar[str] = "loss-divergence"
    lasting: ClassVar[Count] = 50
    """Steps for which the loss must stay above its limit: spikes that come back are no divergence."""
    noise: ClassVar[Positive] = 10.0
    """Median absolute deviations of the loss, as its successive differences show them, which no trend inflates."""
    given_back: ClassVar[Share] = 0.5
    """Part of the fall since the start that must be lost again. Near zero a loss doubles for nothing, and harder data
    may cost a quarter of the fall."""

    name: str = ""
    changes: list[float] = msgspec.field(default_factory=list)
    """Absolute differences between successive losses: their noise, whatever their trend."""
    before: float = math.nan
    curve: Curve = msgspec.field(default_factory=Curve)
    since: int = -1
    """First step of the unbroken stretch in which the short average is over half the margin."""
    over_since: int = -1
    """The same for the long average over the whole margin."""
    far: int = 0
    calm: int = 0
    onset: int = -1
    last: int = -1
    peak: float = -math.inf
    best: float = math.nan
    resolved: bool = False

    def on_step(self, context: Context, view: StepView) -> None:
        value, loss = view.loss, context.loss
        if value is None or not math.isfinite(value):
            return
        if loss.name != self.name:
            self.name, self.changes, self.curve, self.before = loss.name, [], Curve(), math.nan
            self.since = self.over_since = -1
            self.far = 0
        self.curve.add(view.step, loss.fast)
        if loss.count > 1:
            self._judge(view.step, value, context)
        if math.isfinite(self.before):
            self.changes = [*self.changes[-WINDOW + 1 :], abs(value - self.before)]
        self.before = value

    def _judge(self, step: int, value: float, context: Context) -> None:
        loss = context.loss
        # The difference of two values varies by √2 more than either.
        noise = 1.4826 * median(self.changes) / math.sqrt(2) if len(self.changes) >= 10 else 0.0
        best = loss.best
        if self.onset >= 0 and not self.resolved:
            best = min(best, self.best)
        margin = max(self.noise * noise, abs(best), self.given_back * (loss.initial - best), 1e-9)
        if loss.fast > best + margin / 2:
            self.since = step if self.since < 0 else self.since
        else:
            self.since = -1
        if loss.slow > best + margin:
            self.over_since = step if self.over_since < 0 else self.over_since
        else:
            self.over_since = -1
        self.far = self.far + 1 if value > best + RUNAWAY * margin else 0
        # Of two nets that play against each other one loses what the other wins.
        lasting = (
            self.over_since >= 0 and step - self.over_since >= self.lasting and self.since >= 0
        )
        lasting = lasting and not context.several_models
        if lasting or self.far >= SURE:
            if self.onset < 0:
                self.onset = self.since if self.since >= 0 else step
                self.best = best
            self.resolved, self.calm = False, 0
            self.last, self.peak = step, max(self.peak, loss.fast)
        elif self.onset >= 0:
            self.calm = self.calm + 1 if loss.fast < best + margin / 2 else 0
            self.resolved |= self.calm >= self.lasting

    def findings(self, context: Context) -> list[Finding]:
        if self.onset < 0:
            return []
        return [
            self._report(
                severity="critical",
                during=Span(self.onset, self.last, self.resolved),
                seen=f"Smoothed {self.name} up to {self.peak:.4g}; its best was {self.best:.4g}",
                expected="Below twice its best, beyond the noise",
                where=self.name,
                peak=number(self.peak),
                best=number(self.best),
                curve=self.curve.evidence(self.name, None, number_of(2 * self.best)),
                title=f"{self.name} runs away since step {self.onset}: from {self.best:.3g} up to "
                f"{self.peak:.3g}",
                remedy="Go back to a checkpoint before this step and lower the learning rate by 3 "
                "or more; clip gradients; skip the batches of these steps if they differ from the "
                "others.",
            )
        ]

    def state(self, context: Context) -> RuleState:
        if not context.loss.count:
            return self._state("not enough data", "No training loss was logged yet.")
        if self.onset < 0:
            return self._state("ok", f"{context.loss.name} stays near its best or falls.")
        return self._state("resolved" if self.resolved else "firing", f"Since step {self.onset}.")


def number_of(value: float) -> float | None:
    """`value` for a band, None when it is not finite."""
    return value if math.isfinite(value) else None


BLOCKS: Final = 64
TRIFLE: Final = 0.01
LEARNING: Final = 0.01
"""Fall from the first to the last third of the stretch, as a share of the prior, that is learning."""


class Block(msgspec.Struct):
    """Losses of some steps in a row."""

    start: int
    last: int
    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def error(self) -> float:
        """Standard error of the mean; 0 for a single value."""
        variance = max(0.0, self.squares / self.count - self.mean**2)
        return math.sqrt(variance / self.count)


def _together(blocks: list[Block]) -> Block:
    """Several blocks in a row as one."""
    return Block(
        blocks[0].start,
        blocks[-1].last,
        sum(block.count for block in blocks),
        sum(block.total for block in blocks),
        sum(block.squares for block in blocks),
    )


class LossStuckAtPrior(Rule):
    """The loss stays at what a model gets that always predicts the class shares, or the mean."""

    id: ClassVar[str] = "loss-stuck-at-prior"
    below: ClassVar[Share] = 0.02
    """Part of the prior by which a loss may be below it: nothing but learning gets it further."""
    above: ClassVar[Share] = 0.05
    """Part of the prior above it: noise of the updates, and fitting of noise, hold a loss a little above."""
    note_after: ClassVar[Count] = 100
    """Steps at the prior that are worth a note."""
    warn_after: ClassVar[Count] = 200
    """Steps after which even slow starts have left it."""
    stuck_after: ClassVar[Count] = 500
    """Steps after which it is critical."""

    name: str = ""
    blocks: list[Block] = msgspec.field(default_factory=list)
    size: int = 10
    """Losses per block; doubled when there are more than `BLOCKS`."""
    onset: int = -1
    last: int = -1
    length: int = 0
    prior: float = math.nan
    level: float = math.nan
    source: str = ""
    resolved: bool = False
    curve: Curve = msgspec.field(default_factory=Curve)

    def on_step(self, context: Context, view: StepView) -> None:
        value, loss = view.loss, context.loss
        if value is None or not math.isfinite(value):
            return
        if loss.name != self.name:
            self.name, self.blocks, self.size, self.curve = loss.name, [], 10, Curve()
        self.curve.add(view.step, loss.fast)
        if not self.blocks or self.blocks[-1].count >= self.size:
            self.blocks.append(Block(view.step, view.step))
        block = self.blocks[-1]
        block.last = view.step
        block.count += 1
        block.total += value
        block.squares += value * value
        if block.count == self.size:
            self._judge(context)
            if len(self.blocks) >= BLOCKS:
                self._merge()

    def _merge(self) -> None:
        pairs = zip(self.blocks[::2], self.blocks[1::2], strict=True)
        self.blocks = [_together([one, two]) for one, two in pairs]
        self.size *= 2

    def _expected(self, context: Context) -> tuple[float, str]:
        """The loss of a model that has learned nothing but the label shares, and how we know."""
        labels = context.labels
        if labels.get("count", 0) >= 100:
            entropy = labels.get("entropy", math.nan)
            if entropy > 0 and labels.get("classes", 0) > 1:
                return entropy, f"entropy of {labels['classes']:.0f} classes"
            variance = labels.get("variance", math.nan)
            if variance > 0:
                return variance, "variance of the targets"
            return math.nan, ""
        width = context.last_width
        if width > 1 and abs(context.loss.initial - math.log(width)) < 0.1 * math.log(width):
            return math.log(width), f"ln {width}, for {width} outputs"
        return math.nan, ""

    def _judge(self, context: Context) -> None:
        prior, source = self._expected(context)
        if not prior > 0:
            return
        stretch = self._stretch(prior, context.warm_up_end)
        if stretch and _together(stretch).error > self.above * prior:
            stretch = []  # losses of heavy tails: their mean may be anywhere near
        length = stretch[-1].last - stretch[0].start + 1 if stretch else 0
        if stretch and not _learning(stretch, prior, length < self.stuck_after):
            if length >= self.note_after:
                self.prior, self.source = prior, source
                if self.onset < 0 or self.resolved:
                    self.onset = self._stretch(prior, self.blocks[0].start)[0].start
                self.last, self.length = stretch[-1].last, max(self.length, length)
                self.level = _together(stretch).mean
                self.resolved = False
        elif self.onset >= 0:
            self.resolved = True

    def _stretch(self, prior: float, warm_up_end: int) -> list[Block]:
        """The latest blocks in a row, after the warm-up, whose mean is at the prior."""
        stretch: list[Block] = []
        for block in reversed(self.blocks):
            slack = 3 * block.error if stretch else 0.0
            low, high = prior * (1 - self.below) - slack, prior * (1 + self.above) + slack
            if not low <= block.mean <= high or (block.last < warm_up_end):
                break
            stretch.insert(0, block)
        return stretch

    def _severity(self, context: Context) -> Severity:
        whole = context.ended and self.length >= 0.8 * context.steps and not self.resolved
        if self.length >= self.stuck_after or whole:
            return "critical"
        return "warning" if self.length >= self.warn_after else "info"

    def findings(self, context: Context) -> list[Finding]:
        if self.onset < 0:
            return []
        return [
            self._report(
                severity=self._severity(context),
                during=Span(self.onset, self.last, self.resolved),
                seen=f"{self.name} averages {self.level:.4g} over {self.length} steps",
                expected=f"Below {self.prior * (1 - self.below):.4g}: {self.prior:.4g} is what "
                f"guessing by label shares costs ({self.source})",
                where=self.name,
                prior=number(self.prior),
                level=number(self.level),
                curve=self.curve.evidence(
                    self.name, self.prior * (1 - self.below), self.prior * (1 + self.above)
                ),
                title=f"{self.name} stays at {self.level:.3g} since step {self.onset}, the value of "
                f"guessing ({self.prior:.3g}): no signal learned yet",
                remedy="First try to overfit one batch. If that fails, the wiring is wrong: labels "
                "that do not belong to their inputs, a detached output, softmax before "
                "cross-entropy. If it works, look at the labels (shuffled apart from the inputs?) "
                "and the learning rate (far too low or far too high).",
            )
        ]

    def state(self, context: Context) -> RuleState:
        if self.onset >= 0:
            return self._state("resolved" if self.resolved else "firing", f"Since {self.onset}.")
        if context.loss.count < self.note_after:
            return self._state("not enough data", f"Judged after {self.note_after} losses.")
        prior, source = self._expected(context)
        if not prior > 0:
            return self._state("not applicable", "The loss of guessing is not known: no labels.")
        return self._state("ok", f"The loss of guessing is {prior:.4g} ({source}).")


def _learning(stretch: list[Block], prior: float, early: bool) -> bool:
    """Whether the stretch shows learning: the loss ends below the prior, or falls towards it.

    Both by more than their noise and not by a trifle. Without learning a loss comes down to the
    prior from above, and stays at it or above it; a fall alone counts only `early`.
    """
    third = len(stretch) // 3
    if not third:
        return False
    first, last = stretch[:third], stretch[-third:]
    end, error = _mean(last)
    if end < prior * (1 - TRIFLE) and end < prior - 3 * error:
        return True
    if not early:
        return False
    start, start_error = _mean(first)
    fall = start - end
    return fall > 2 * math.hypot(error, start_error) and fall > LEARNING * prior


def _mean(blocks: list[Block]) -> tuple[float, float]:
    """Mean over blocks, and its standard error."""
    error = math.sqrt(sum(block.error**2 for block in blocks)) / len(blocks)
    return sum(block.mean for block in blocks) / len(blocks), error
