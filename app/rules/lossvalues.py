"""What a loss and its labels say by their numbers: the first value, the sign, the range, the reduction."""

import math
import re
from typing import ClassVar, Final

from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Severity
from trainvitals.app.rules.losscalls import CROSS_ENTROPY, NAMES, REGRESSION, of_kind, shown
from trainvitals.app.rules.observed import FINE, SKIP, Looked, ObservedRule, Sight, wrong
from trainvitals.app.rules.thresholds import Positive
from trainvitals.hooks.wire.observed import LossCall, Observed

BOUNDED: Final = ("cross-entropy", "bce", "bce-logits", *REGRESSION)
"""Losses that are never negative, their targets being right."""
CRASHES: Final = re.compile(
    r"Target (-?\d+) is out of bounds|t >= 0 && t < n_classes|index out of range in self"
)
"""What PyTorch says of a label that is no class."""


class InitialLossMismatch(ObservedRule):
    """The loss of the first step is not that of guessing."""

    id: ClassVar[str] = "initial-loss-mismatch"
    warn: ClassVar[Positive] = 2.0
    """Nats over the loss of guessing that are a warning: scores with a standard deviation of 2 add as much."""
    note: ClassVar[Positive] = 0.5
    """The same for an info: what scores with a standard deviation of 1 add."""
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "About the loss of guessing: ln C for C classes, ln 2 for yes or no"
    remedy: ClassVar[str] = (
        "Scale the last layer's weights down (or start it at 0), and check that labels and outputs belong together. "
        "Far below the expected value: a label among the inputs, or weights that were trained before."
    )
    about: ClassVar[str] = (
        "Judged at the first step of a training from scratch, for (binary) cross-entropy."
    )

    fine_tuned: bool = False

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if seen.facts is not None:
            self.fine_tuned = seen.facts.mode != "scratch"
        if view.step != context.first_step or view.step or self.fine_tuned or self.held.count:
            return SKIP
        judged = [
            (loss, _guessing(loss))
            for loss in seen.losses
            if loss.before in ("linear", "convolution", "")
        ]
        for loss, guessing in judged:
            if guessing is None or loss.value is None or loss.error is None:
                continue
            excess, error = loss.value - guessing, 3 * loss.error
            severity = self._surprise(excess, error, guessing)
            if severity is not None:
                return wrong(
                    f"The first loss is {loss.value:.3g}, where guessing costs {guessing:.3g}",
                    f"{NAMES[loss.kind]} {loss.value:.4g} ± {loss.error:.2g} at step {view.step}",
                    severity,
                )
            return FINE
        return SKIP

    def _surprise(self, excess: float, error: float, guessing: float) -> Severity | None:
        if excess > self.warn + error:
            return "warning"
        raised = excess > self.note + error
        return "info" if raised or excess < -0.5 * guessing - error else None


def _guessing(loss: LossCall) -> float | None:
    if loss.kind == "cross-entropy" and loss.normalised is not None and loss.normalised[1] > 1:
        return math.log(loss.normalised[1])
    return math.log(2) if loss.kind == "bce-logits" else None


class LossNegative(ObservedRule):
    """The loss that the training minimises is the negative of a loss that is never negative."""

    id: ClassVar[str] = "loss-negative"
    expected: ClassVar[str] = "A loss of 0 or more"
    remedy: ClassVar[str] = (
        "Remove the minus: the training maximises its error. False alarm: an opponent that is meant to."
    )
    about: ClassVar[str] = "No look has shown a single loss call of a bounded loss."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if (
            seen.root is None
            or len(seen.losses) != 1
            or seen.losses[0].kind not in BOUNDED
            or not seen.losses[0].value
        ):
            return SKIP
        loss = seen.losses[0]
        own = loss.value or 0.0
        if seen.root < -1e-6 and abs(seen.root + own) <= 0.02 * abs(own):
            return wrong(
                f"The loss is {seen.root:.3g}: {NAMES[loss.kind]} with its sign turned",
                f"Backward begins with {seen.root:.4g}; {NAMES[loss.kind]} is {own:.4g}",
            )
        return FINE


class LossReductionSum(ObservedRule):
    """The loss is the sum over the batch, so that the batch size scales the learning rate."""

    id: ClassVar[str] = "loss-reduction-sum"
    expected: ClassVar[str] = "The mean over the batch"
    remedy: ClassVar[str] = (
        "Use the mean, or divide by the batch size; with the sum the last, shorter batch counts less."
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = [loss for loss in seen.losses if loss.reduction]
        if not losses:
            return SKIP
        for loss in losses:
            if loss.reduction == "sum" and loss.shape and loss.shape[0] > 1:
                return wrong(
                    f"{NAMES[loss.kind]} is summed over {shown(loss.shape)}",
                    'reduction="sum"',
                    "info",
                )
        return FINE


class LabelOutOfRange(ObservedRule):
    """A label that the loss has no place for."""

    id: ClassVar[str] = "label-out-of-range"
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "Labels 0 to C − 1 for C outputs; 0 to 1 for binary cross-entropy"
    remedy: ClassVar[str] = (
        "Count the labels from 0, give the model as many outputs as there are classes, mark padding with the loss's "
        "ignore_index, and scale binary targets to [0, 1]."
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        applies = False
        for loss in of_kind(seen, "bce", "bce-logits", "nll", *CROSS_ENTROPY):
            targets = loss.targets
            if targets is None:
                continue
            applies = True
            if targets.negative:
                return wrong(
                    f"{targets.negative} labels below 0, which the loss does not ignore",
                    f"Labels from {targets.low:.0f} to {targets.high:.0f}",
                )
            if loss.kind in ("bce", "bce-logits") and (targets.outside_unit or 0) > 0:
                share = 100 * (targets.outside_unit or 0)
                return wrong(
                    f"{share:.3g} % of the targets of {NAMES[loss.kind]} are outside [0, 1]",
                    f"Targets from {targets.low:.3g} to {targets.high:.3g}",
                )
        return FINE if applies else SKIP

    def on_end(self, context: Context) -> None:
        match = CRASHES.search(context.message) if not self.held.fired else None
        if match is not None:
            label = f"the label {match.group(1)}" if match.group(1) else "a label"
            title = f"The training ended because of {label}, for which there is no output"
            self._hold(max(context.last_step, 0), Sight(title, context.message[:300]))


class IgnoredLabelBatch(ObservedRule):
    """Every label of a batch is one to be ignored: the mean loss over none is NaN."""

    id: ClassVar[str] = "ignored-label-batch"
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "At least one label in every batch"
    remedy: ClassVar[str] = (
        "Leave such samples out, or take a longer context; with reduction='mean' their loss is 0/0."
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = [
            loss for loss in of_kind(seen, "cross-entropy", "nll") if loss.targets is not None
        ]
        if not losses:
            return SKIP
        for loss in losses:
            targets = loss.targets
            if (
                targets is not None
                and targets.ignored
                and not targets.classes
                and not targets.negative
            ):
                return wrong(
                    f"All {targets.count} labels of a batch are to be ignored",
                    f"{targets.ignored} labels with the loss's ignore_index",
                    "warning",
                )
        return FINE


class LabelScale(ObservedRule):
    """Regression targets whose size no freshly made network gives."""

    id: ClassVar[str] = "label-scale"
    large: ClassVar[Positive] = 100.0
    """Standard deviation of the targets that is a warning: two decades above the outputs of a new network."""
    small: ClassVar[Positive] = 0.01
    """Standard deviation below which it is an info: two decades below, where the loss is small but falls."""
    expected: ClassVar[str] = "Targets with a standard deviation near 1"
    remedy: ClassVar[str] = (
        "Standardise the targets with the training set's mean and standard deviation, and undo it on the outputs. "
        "False alarm: a model that scales its own output."
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = [loss for loss in of_kind(seen, *REGRESSION) if loss.targets and loss.targets.std]
        if not losses:
            return SKIP
        for loss in losses:
            std = loss.targets.std if loss.targets is not None and loss.targets.std else 1.0
            if std > self.large or std < self.small:
                return wrong(
                    f"The targets have a standard deviation of {std:.3g}",
                    f"Targets {loss.targets.mean:.3g} ± {std:.3g}" if loss.targets else "",
                    "warning" if std > self.large else "info",
                )
        return FINE
