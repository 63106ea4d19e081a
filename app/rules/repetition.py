"""Batches that come again: the same one at every step, the same ones in every pass."""

import math
from typing import ClassVar, Final

import msgspec

from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.observed import FINE, SKIP, Looked, ObservedRule, wrong
from trainvitals.app.rules.thresholds import Count
from trainvitals.app.rules.validation import is_validation_loss
from trainvitals.hooks.wire.observed import BatchSeen, LoaderSeen, Observed

AGAIN: Final = 5
"""Looks in a row at the very same batch."""


class RepeatedBatch(ObservedRule):
    """Every step trains on the very same batch.

    Formula: equal checksums of the inputs (equal mean, deviation and range where they are not in host memory) in 5
    looks in a row. Critical where the data are known to be larger: 10 times, as the loader has more batches or the
    inputs are a part of a larger tensor; or an evaluation gives twice as many samples at once, of a classifier or with
    twice the training's loss: a function fitted on a few points and drawn on many has the same loss on them. Else
    an info: training on all data at once, or on one batch as a test. Default: two equal batches are chance, five are
    not. Applies to: models called with a tensor. Guards: looks a whole number of passes apart meet the same batch of
    data that keep their order, so the looks must have no common distance; a run tagged "overfit" or "overfit-test"
    means it. Guide tips: 55. Sources: guides B and D.
    """

    id: ClassVar[str] = "repeated-batch"
    part: ClassVar[Count] = 10
    """Times by which the data must be larger than the batch: less is one step's share of a small set."""
    k: ClassVar[int] = AGAIN - 1
    n: ClassVar[int] = AGAIN - 1
    expected: ClassVar[str] = "Another batch at every step"
    remedy: ClassVar[str] = (
        "Iterate over the loader (for x, y in loader) instead of taking next(iter(loader)) in every step, and move the "
        "fetching into the loop. False alarm: a test that overfits one batch; tag the run overfit-test."
    )
    diff: ClassVar[str] = "- x, y = next(iter(loader))\n+ for x, y in loader:"
    about: ClassVar[str] = "No batch was seen yet."

    before: str = ""
    at: int = -1
    """Step of the look before."""
    apart: int = 0
    """Greatest common divisor of the steps between looks at the same batch."""
    loader: LoaderSeen | None = None
    evaluated: int = 0
    """Samples of the largest evaluation."""
    classes: bool = False
    losses: list[float] = msgspec.field(default_factory=list)
    """The last three validation losses."""

    def on_step(self, context: Context, view: StepView) -> None:
        told = [value for name, value in view.scalars.items() if is_validation_loss(name)]
        self.losses = [*self.losses, *filter(math.isfinite, told)][-3:]
        super().on_step(context, view)

    def _fails_elsewhere(self, context: Context) -> bool:
        """Whether what is learned of the batch does not hold for what is evaluated."""
        return bool(self.losses) and min(self.losses) > 2 * max(context.loss.fast, 0.0)

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        self.loader = seen.loader or self.loader
        self.evaluated = max(self.evaluated, seen.evaluation.samples if seen.evaluation else 0)
        self.classes |= any(loss.kind == "cross-entropy" for loss in seen.losses)
        batch = seen.batch
        if batch is None:
            return SKIP
        print_ = _fingerprint(batch)
        same, self.before = print_ != "" and print_ == self.before, print_
        self.apart = math.gcd(self.apart, view.step - self.at) if same else 0
        self.at = view.step
        if not same or self.apart > 1:
            return FINE
        meant = any(tag.lower().startswith("overfit") for tag in context.tags)
        batches = self.loader.batches if self.loader is not None else 0
        samples = batch.shape[0] if batch.shape else 1
        larger, of = True, f"one of {batches} of the loader"
        if batches < self.part:
            larger, of = batch.owner >= self.part * samples, f"{samples} of {batch.owner} samples"
        tells = self.classes or self._fails_elsewhere(context)
        if not larger and tells and self.evaluated >= 2 * samples:
            larger, of = True, f"{samples} samples, where {self.evaluated} are evaluated"
        return wrong(
            "Every step sees the same batch" + (f", {of}" if larger else ""),
            f"The same inputs in every look (checksum {batch.digest or 'of their range'})",
            "critical" if larger and not meant else "info",
        )


def _fingerprint(batch: BatchSeen) -> str:
    if batch.digest:
        return batch.digest
    return f"{batch.mean}/{batch.std}/{batch.low}/{batch.high}" if batch.mean is not None else ""


class SameOrderEveryEpoch(ObservedRule):
    """The same batches come again in every pass over the data.

    Formula: three batches that were seen in earlier looks, with others between, come back by checksum, after a whole
    number of passes: the steps between have a common divisor that leaves room for all batches seen so far. Or the first
    batch of a DataLoader's pass is that of the pass before, twice in a row, of 4 batches and more. Default: shuffled
    data bring a batch back with a chance of practically 0, one of a single sample after any number of steps. Applies
    to: inputs in host memory. Guards: the same batch at every step is `repeated-batch`; 4,096 batches are remembered.
    False alarm: a time series that has to stay in order. Guide tips: 37, 135. Sources: PyTorch's documentation of
    DistributedSampler.
    """

    id: ClassVar[str] = "same-order-every-epoch"
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "Other batches in every pass"
    remedy: ClassVar[str] = (
        "DataLoader(shuffle=True), or torch.randperm once an epoch; sampler.set_epoch(epoch) with a "
        "DistributedSampler; no generator that is seeded anew in every epoch. False alarm: a time series that has to "
        "stay in order."
    )
    diff: ClassVar[str] = (
        "- DataLoader(data, batch_size=64)\n+ DataLoader(data, batch_size=64, shuffle=True)"
    )
    about: ClassVar[str] = "No batch in host memory was seen yet."

    known: dict[str, int] = msgspec.field(default_factory=dict)
    """Checksum of a batch to the last step at which it was seen."""
    before: str = ""
    returns: int = 0
    period: int = 0
    """Greatest common divisor of the steps between a batch and its return: a whole number of passes."""

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if seen.loader is not None and seen.loader.same_order >= 2:
            return wrong(
                f"{seen.loader.same_order + 1} passes over the data began with the same batch",
                f"Equal first batches of {seen.loader.batches} a pass",
                "warning",
            )
        digest = seen.batch.digest if seen.batch is not None else ""
        if not digest:
            return SKIP
        earlier, last = self.known.get(digest), self.before
        if len(self.known) < 4096 or earlier is not None:
            self.known[digest] = view.step
        self.before = digest
        if earlier is None or digest == last:
            return SKIP if self.held.fired else FINE
        self.returns += 1
        self.period = math.gcd(self.period, view.step - earlier)
        if self.returns < 3 or self.period < len(self.known):
            return FINE
        return wrong(
            f"Batches come back unchanged: that of step {earlier} again at step {view.step}",
            f"{self.returns} batches with the same samples in the same order as before",
            "warning",
        )
