"""Waiting for data: how much of a step it takes, and whether the loader works alone."""

from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Persistence, median
from trainvitals.app.rules.thresholds import Count, Positive, Share
from trainvitals.hooks.wire.observed import LoaderSeen

FEWEST: Final = 10
"""Records behind a median: one of them may hold the start of an epoch, with the workers' start in it."""


class WaitRule(Rule):
    """Measures what a median step of the last hundred waits for its DataLoader.

    The time is taken around the iterator's `next`, so that work which an accelerator still has to do does not count.
    """

    window: ClassVar[Count] = 100
    """Steps of which a median is taken, again and again: the first batch of an epoch, which waits for the workers to
    start, is one of many."""
    skipped: ClassVar[Count] = 20
    """First steps, which are not judged: caches are cold, kernels are chosen, workers start."""
    note: ClassVar[Share] = 0.05
    """Share of a step. TensorFlow's profiler calls an input pipeline that takes more moderately bound."""
    delay: ClassVar[Positive] = 0.01
    """Seconds that a median step waits. Putting a batch of tensors in memory together takes 0.3 to 3 ms, however small
    the model is, and so is no fault of its pipeline."""
    total: ClassVar[Positive] = 60.0
    """Seconds that the training has waited in all: shorter waits at a step count, too, when they add up to that."""

    shares: list[float] = msgspec.field(default_factory=list)
    waits: list[float] = msgspec.field(default_factory=list)
    """Of the records of the window under way: share of a step, and seconds a step."""
    steps: int = 0
    """Steps of the window under way."""
    begin: int = -1
    """Its first step."""
    share: float = 0.0
    wait: float = 0.0
    """Medians of the last full window."""
    before: int = -1
    """Step of the record before."""
    waited: float = 0.0
    """Seconds in all."""
    loader: LoaderSeen | None = None
    held: Persistence = msgspec.field(default_factory=Persistence)

    def on_step(self, context: Context, view: StepView) -> None:
        if view.observed is not None and view.observed.loader is not None:
            self.loader = view.observed.loader
        wait, step = view.scalars.get("tv/data_wait"), view.scalars.get("tv/step_time")
        if wait is None or not step:
            return
        steps = max(view.step - self.before, 1) if self.before >= 0 else 1
        self.before = view.step
        self.waited += wait * steps
        if view.step < context.first_step + self.skipped:
            return
        self.begin = view.step if self.begin < 0 else self.begin
        self.steps += steps
        self.shares.append(min(wait / step, 1.0))
        self.waits.append(wait)
        if self.steps >= self.window and len(self.shares) >= FEWEST:
            self._judge(view.step)

    def _judge(self, step: int) -> None:
        """The window is full."""
        self.share, self.wait = median(self.shares), median(self.waits)
        felt = self.wait >= self.delay or self.waited >= self.total
        over = felt and self.share >= self.note and self._applies()
        fired = self.held.fired
        self.held.update(step, over, calm=self.share < self.note / 2, k=1, n=2)
        if self.held.fired and not fired:
            self.held.onset = self.begin
        self.shares, self.waits, self.steps, self.begin = [], [], 0, -1

    def _applies(self) -> bool:
        """Whether a wait that is felt is what the rule is about."""
        return True

    def _without_finding(self, context: Context) -> RuleState:
        if self.before < 0:
            return self._state("not applicable", "The training uses no DataLoader of PyTorch.")
        if not self.held.count:
            return self._state("not enough data", f"Judged from {self.window} steps on.")
        return self._state(
            "ok", f"{100 * self.share:.0f} % of a step, {1000 * self.wait:.3g} ms, is waiting."
        )


class InputBound(WaitRule):
    """The training waits for its data: the median share of a step that passes inside the DataLoader's `next`."""

    id: ClassVar[str] = "input-bound"
    warn: ClassVar[Share] = 0.2
    """Share of a step. TensorFlow's profiler calls such a pipeline highly bound: a fifth of the machine's time is paid
    for nothing."""

    worst: float = 0.0
    """The largest share while it held."""
    seconds: float = 0.0
    """What a step waited then."""

    def _judge(self, step: int) -> None:
        super()._judge(step)
        if self.held.last == step and self.share > self.worst:
            self.worst, self.seconds = self.share, self.wait

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired:
            return []
        severity: Severity = "warning" if self.worst >= self.warn else "info"
        return [
            self._report(
                severity=severity,
                during=self.held.span,
                where="the DataLoader",
                title=f"{100 * self.worst:.0f} % of the time of a step is waiting for data, since step "
                f"{self.held.onset}",
                seen=f"{1000 * self.seconds:.3g} ms of a median step inside the DataLoader; "
                f"{self.waited:.3g} s in all",
                expected=f"Below {100 * self.note:.0f} %: the next batch is ready when a step ends",
                remedy="Let more workers prepare batches (num_workers, prefetch_factor, persistent_workers=True), with "
                "pin_memory=True for a GPU. Then make a sample cheaper: decode or resize once and cache it, read "
                "larger files in order, move augmentation to the GPU.",
                diff="- DataLoader(data, batch_size=64, shuffle=True)\n"
                "+ DataLoader(data, batch_size=64, shuffle=True, num_workers=4, persistent_workers=True)",
            )
        ]


class LoaderWorkersZero(WaitRule):
    """The training waits for its data, which the training process itself prepares between the steps."""

    id: ClassVar[str] = "loader-workers-zero"

    def _applies(self) -> bool:
        seen = self.loader
        return seen is not None and seen.workers == 0 and not seen.in_memory

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired:
            return []
        return [
            self._report(
                severity="info",
                during=self.held.span,
                where="the DataLoader",
                title=f"The training waits for its data, and no worker prepares them, since step {self.held.onset}",
                seen=f"num_workers=0; {100 * self.share:.0f} % of a step is waiting",
                expected="Workers that prepare the next batches while a step runs",
                remedy="DataLoader(num_workers=4, persistent_workers=True): as many as there are free cores for a "
                "process. False alarm: data in memory, or a machine without a free core.",
                diff="- DataLoader(data, batch_size=64)\n"
                "+ DataLoader(data, batch_size=64, num_workers=4, persistent_workers=True)",
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        seen = self.loader
        if seen is not None and seen.workers > 0:
            return self._state("ok", f"{seen.workers} workers prepare the data.")
        if seen is not None and seen.in_memory:
            return self._state("not applicable", "The data are tensors in memory.")
        return super()._without_finding(context)
