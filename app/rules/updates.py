"""update-ratio-high: optimizer steps that replace the weights instead of adjusting them."""

import math
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, Floats, StepView, Table
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.ratejump import GIVEN_BACK, RateJump
from trainvitals.app.rules.statistics import Curve, Persistence, Span, number
from trainvitals.app.rules.thresholds import Positive
from trainvitals.hooks.wire.records import Event

SMALL_INIT: Final = 0.3
"""Weights are never taken as smaller than this times 1/√fan-in. PyTorch's own start is 0.58 of it,
GPT-2's 0.55; a layer that starts at or near zero grows by design, whatever its ratio."""
WINDOW: Final = 20
"""Samples in which ten must be over `ratio`, or the mean of all, each counted as at most 1: a short
burst that replaces the weights altogether weighs as much as a long one."""
STALLED: Final = 0.8
"""Of `ratio`, in three samples: too much where the loss does not fall at the same time."""
LITTLE: Final = 0.4
"""Share of its start by which `AFTER` losses bring down the loss of nearly every training."""
AFTER: Final = 150
SETTLED: Final = 10
"""Steps in which a short burst proves nothing: a quasi-Newton method leaps at its start."""
CALM: Final = 10
"""Samples below half the limit that resolve it."""
MOST_DECADES: Final = 3
"""The ratios of a blow-up grow without end and say nothing about the rate that would be right."""
AFTERMATH: Final = 50
"""Steps in which the loss must answer an extreme step for the two to count as one."""


class UpdateRatioHigh(Rule):
    """Judges the median over weight matrices, three of them, or one that is ten times over."""

    id: ClassVar[str] = "update-ratio-high"
    ratio: ClassVar[Positive] = 0.1
    """Healthy trainings cover 7e-6 to 3e-2, so that a fixed band around 1e-3 alarms in each of them at some time; this
    is three times what the fastest of them reach after their first steps."""
    extreme_ratio: ClassVar[Positive] = 0.5
    """A step that replaces half of the weights: critical in 3 of 20 samples."""
    overwhelming_ratio: ClassVar[Positive] = 5.0
    """A step that makes the typical weight matrix five times as large as it was: once is enough."""

    high: Persistence = msgspec.field(default_factory=Persistence)
    extreme: Persistence = msgspec.field(default_factory=Persistence)
    curve: Curve = msgspec.field(default_factory=Curve)
    samples: int = 0
    recent: list[float] = msgspec.field(default_factory=list)
    """Levels of the last `WINDOW` samples."""
    previous: int = -1
    """Step of the sample before."""
    start: int = -1
    """First sample of the latest burst, or the step of the rise in rate just before it."""
    rate_rose: bool = True
    """Whether that burst came with a rise of the learning rate, or at the very start."""
    peak: float = 0.0
    """Largest median so far."""
    worst: dict[str, float] = msgspec.field(default_factory=dict)
    """Largest ratio of each layer that was over the limit."""
    burst_step: int = -1
    """First extreme sample, and what the loss was by then."""
    burst_loss: float = math.nan
    answers: int = 0
    """Losses or gradient norms within `AFTERMATH` steps that tell of a blow-up."""
    rate: float = math.nan
    """Highest learning rate at the onset."""
    large: int = 0
    """Samples over `STALLED` times `ratio`."""
    stalled: int = -1
    """Last step at which the loss had hardly fallen after such samples."""
    jump: RateJump = msgspec.field(default_factory=RateJump)

    def on_step(self, context: Context, view: StepView) -> None:
        self.jump.update(context, view)
        self._watch_aftermath(context, view)
        loss = context.loss
        if self.large >= 3 and loss.count >= AFTER and loss.best > (1 - LITTLE) * loss.initial > 0:
            self.stalled = view.step
        for table in view.parameters:
            ratios = self._ratios(table)
            if ratios is not None:
                self._judge(context, view.step, table, ratios)

    def on_event(self, context: Context, position: tuple[str, int, int], event: Event) -> None:
        if event.kind == "nonfinite" and position[2] == 0:
            self._answer(event.step, 2)

    @staticmethod
    def _ratios(table: Table) -> Floats | None:
        """Ratios of the judged matrices; NaN for the other rows. None without any."""
        group = table.group
        judged = group.matrix & ~group.head
        if np.count_nonzero(judged) < 2:
            judged = group.matrix
        weights = table.column("weight_rms")
        floor = SMALL_INIT / np.sqrt(group.fan_in)
        with np.errstate(invalid="ignore"):
            ratios = table.column("update_ratio") * np.minimum(1.0, weights / floor)
        ratios[~judged | ~np.isfinite(ratios)] = math.nan
        return None if np.isnan(ratios).all() else ratios

    def _judge(self, context: Context, step: int, table: Table, ratios: Floats) -> None:
        middle = float(np.nanmedian(ratios))
        most = float(np.nanmax(ratios))
        third = float(np.sort(ratios[np.isfinite(ratios)])[::-1][:3][-1])
        if np.count_nonzero(np.isfinite(ratios)) < 3:
            third = middle
        level = max(middle, third, most / 10)
        self.samples += 1
        self.recent = [*self.recent[-WINDOW + 1 :], min(level, 1.0)]
        self.peak = max(self.peak, middle)
        self.curve.add(step, middle)
        if level > self.ratio:
            if not self.worst:
                self.rate = max(context.rates.values(), default=math.nan)
            for index in np.flatnonzero(ratios > self.ratio):
                layer = table.group.rows[index].layer
                self.worst[layer] = max(self.worst.get(layer, 0.0), float(ratios[index]))
        if level > self.extreme_ratio and self.burst_step < 0:
            self.burst_step, self.burst_loss = step, context.loss.fast
        if level > self.ratio:
            self._note_rate(context, step)
        if step > context.first_step:  # the first step of Adam is the largest of all
            self.large += level > STALLED * self.ratio
        lost = self.large >= 3 and context.loss.regained > 2 * GIVEN_BACK
        sure = middle > self.overwhelming_ratio or self.answers >= 2 or lost
        replaced = sum(self.recent) > self.ratio * WINDOW and step >= context.first_step + SETTLED
        self._hold(self.high, step, level, self.ratio, 10, sure or replaced)
        self._hold(self.extreme, step, level, self.extreme_ratio, 3, sure)
        self.previous = step

    def _note_rate(self, context: Context, step: int) -> None:
        """Whether the learning rate rose shortly before: then it is to blame, not a gradient."""
        if not self.high.over:
            self.rate_rose = context.rate_top_step >= min(self.previous, step - AFTERMATH)
            rose = max(self.previous + 1, context.rate_top_step)
            self.start = rose if self.previous < context.rate_top_step <= step else step

    @staticmethod
    def _hold(held: Persistence, step: int, level: float, limit: float, k: int, sure: bool) -> None:
        held.update(
            step, level > limit, calm=level < limit / 2, k=k, n=WINDOW, sure=sure, calm_n=CALM
        )

    def _watch_aftermath(self, context: Context, view: StepView) -> None:
        for value in (view.loss, view.scalars.get("tv/grad_norm")):
            if value is not None and not math.isfinite(value):
                self._answer(view.step, 2)
        if view.loss is not None and view.loss > 3 * self.burst_loss > 0:
            self._answer(view.step, 1)

    def _answer(self, step: int, weight: int) -> None:
        if 0 <= self.burst_step <= step <= self.burst_step + AFTERMATH:
            self.answers += weight

    @property
    def _confirmed_late(self) -> bool:
        """The blow-up was over before a second sample could be taken."""
        return self.answers >= 2 and not self.extreme.fired

    def findings(self, context: Context) -> list[Finding]:
        extreme = self.extreme.fired or self._confirmed_late
        if not (self.high.fired or extreme):
            if self.jump.confirmed:
                return [self._unsampled(context)]
            if self.stalled < 0:
                return []
        starts = [held.onset for held in (self.high, self.extreme) if held.fired]
        onset = min(starts) if starts else self.burst_step
        onset = context.first_step if onset < 0 else onset
        if self.rate_rose and 0 <= onset - self.start <= AFTERMATH:
            onset = self.start  # between two samples, and the rate tells at which step
        if self.jump.confirmed and 0 <= onset - self.jump.step <= AFTERMATH:
            onset = self.jump.step
        last = max(self.high.last, self.extreme.last, self.stalled, onset)
        over = not extreme or not self.extreme.fired or self.extreme.resolved
        resolved = over and (not self.high.fired or self.high.resolved) and starts != []
        layers = sorted(self.worst, key=lambda name: (-self.worst[name], name))
        top = layers[0] if layers else ""
        ratio = self.worst.get(top, self.peak)
        rate = f" of {self.rate:.3g}" if math.isfinite(self.rate) else ""
        blame = f"Learning rate{rate} is too high"
        if self.jump.step == onset:
            blame = f"Learning rate rose from {self.jump.before:.3g} to {self.jump.after:.3g}"
        if not self.rate_rose:
            blame = f"Updates became too large at a learning rate{rate}"
        return [
            self._report(
                severity="critical" if extreme else "warning",
                during=Span(onset, last, resolved),
                layers=layers,
                seen=f"One step changed {top or 'the model'} by up to {ratio:.3g} times its "
                f"own size; the median matrix by up to {self.peak:.3g}",
                expected=f"Under 0.03 after the first steps; over {self.ratio:g} is "
                "too much for any optimizer",
                ratio=number(ratio),
                learning_rate=number(self.rate),
                rate_rose=self.rate_rose,
                curve=self.curve.evidence("Update ratio, median matrix", None, self.ratio),
                title=f"{blame}: one step changed {top or 'the model'} by "
                f"{_times(ratio)} its size, since step {onset}",
                remedy=self._remedy(),
            )
        ]

    def _unsampled(self, context: Context) -> Finding:
        """The blow-up fell between two samples: only rate and loss tell of it."""
        jump = self.jump
        change = f"from {jump.before:.3g} to {jump.after:.3g}"
        recovered = context.loss.regained < GIVEN_BACK / 2
        return self._report(
            severity="critical",
            during=Span(jump.step, context.last_step, recovered),
            seen=f"The learning rate rose {change} in one step, and the loss ran away",
            expected="A loss that stays near its best after the rate changes",
            where="the whole model",
            learning_rate=number(jump.after),
            rate_rose=True,
            title=f"Learning rate rose {change} and the loss ran away, since step {jump.step}",
            remedy=self._remedy(),
        )

    def _remedy(self) -> str:
        lower = ""
        if self.jump.confirmed:
            lower = f" Go back to {self.jump.before:.3g}, and to a checkpoint before the rise."
        elif math.isfinite(self.rate) and self.rate > 0:
            decades = math.ceil(math.log10(max(self.peak, self.ratio) / 0.03))
            lower = f" Try {self.rate / 10.0 ** min(decades, MOST_DECADES):.1g} first."
        return (
            f"Lower the learning rate by 10 or more, until one step changes weights by less than "
            f"0.03 of their size.{lower} If only the first steps are too large, warm the rate up "
            "over a few hundred steps. Clip the gradient norm when single batches cause it."
        )

    def state(self, context: Context) -> RuleState:
        found = self.findings(context)
        if found:
            return self._state(found[0].state, found[0].evidence["seen"])
        if not self.samples:
            return self._state("not enough data", "No update of a weight matrix was sampled yet.")
        return self._state(
            "ok", f"Median update ratio at most {self.peak:.2g} in {self.samples} samples."
        )


def _times(ratio: float) -> str:
    return f"{100 * ratio:.3g} % of" if ratio < 10 else f"{ratio:.2g} times"
