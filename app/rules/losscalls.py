"""Losses that are given what they do not take: probabilities for logits, probabilities for their logarithms, shapes
that broadcast, outputs that cannot reach their targets."""

import math
from typing import ClassVar, Final

from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.observed import FINE, SKIP, Looked, ObservedRule, wrong
from trainvitals.app.rules.thresholds import Positive, Share
from trainvitals.hooks.wire.observed import LossCall, Observed

CROSS_ENTROPY: Final = ("cross-entropy", "soft-cross-entropy")
ELEMENTWISE: Final = ("mse", "smooth-l1", "huber", "squares", "absolute", "bce", "bce-logits")
REGRESSION: Final = ("mse", "smooth-l1", "huber", "squares", "absolute")
NAMES: Final = {
    "cross-entropy": "cross-entropy",
    "soft-cross-entropy": "cross-entropy",
    "nll": "the negative log-likelihood",
    "bce": "binary cross-entropy",
    "bce-logits": "binary cross-entropy with logits",
    "mse": "the squared error",
    "squares": "the squared error",
    "smooth-l1": "the smooth L1 loss",
    "huber": "the Huber loss",
    "absolute": "the absolute error",
}
LAYERS: Final = ("linear", "convolution")
"""Operations whose output is no probability by construction."""


def of_kind(seen: Observed, *kinds: str) -> list[LossCall]:
    """The loss calls of some kinds."""
    return [loss for loss in seen.losses if loss.kind in kinds]


def shown(shape: tuple[int, ...]) -> str:
    """A shape as people write it."""
    return f"({', '.join(map(str, shape))})"


class SoftmaxBeforeCrossEntropy(ObservedRule):
    """Cross-entropy is given probabilities, of which it takes a softmax again."""

    id: ClassVar[str] = "softmax-before-cross-entropy"
    rows: ClassVar[Share] = 0.99
    """Share of the output's rows that have to be probabilities where the graph hides the softmax: batches end with
    padding at times."""
    expected: ClassVar[str] = "Raw scores (logits): cross-entropy takes the softmax itself"
    remedy: ClassVar[str] = (
        "Remove the softmax at the end of the model, and take it only where probabilities are shown. Learning then "
        "is several times as quick, as the gradient no longer vanishes for confident outputs. Or keep it and use "
        "nll_loss of its logarithm. False alarm: a second softmax on purpose."
    )
    diff: ClassVar[str] = (
        "- loss = F.cross_entropy(logits.softmax(-1), target)\n+ loss = F.cross_entropy(logits, target)"
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = of_kind(seen, *CROSS_ENTROPY)
        if not losses:
            return SKIP
        for loss in losses:
            if loss.before == "softmax":
                return wrong(
                    f"Cross-entropy is given the output of a softmax {shown(loss.shape)}",
                    "A softmax right before cross-entropy, which takes the softmax itself",
                )
            hidden = loss.before not in (*LAYERS, "log-softmax", "sigmoid")
            simplex = seen.output_simplex or 0.0
            if hidden and loss.before == "" and simplex >= self.rows:
                return wrong(
                    f"Cross-entropy is given probabilities {shown(loss.shape)}",
                    f"{100 * simplex:.0f} % of the output's rows are at least 0 and add up to 1",
                )
            if loss.before == "sigmoid":
                return wrong(
                    f"Cross-entropy is given the output of a sigmoid {shown(loss.shape)}",
                    "A sigmoid right before cross-entropy: no score can differ from another by more than 1",
                    "warning",
                )
            if loss.before == "log-softmax":
                return wrong(
                    f"Cross-entropy is given the output of a log-softmax {shown(loss.shape)}",
                    "A log-softmax before cross-entropy: harmless, and done twice",
                    "info",
                )
        return FINE


class NllWithoutLog(ObservedRule):
    """`nll_loss` is given something other than log-probabilities."""

    id: ClassVar[str] = "nll-without-log"
    apart: ClassVar[Positive] = 0.1
    """How far the logarithm of the sum of a row's exponentials may be from 0: rounding stays below 0.01, also in
    bfloat16."""
    expected: ClassVar[str] = (
        "Log-probabilities: at most 0, and their exponentials add up to 1 in each row"
    )
    remedy: ClassVar[str] = (
        "Give it log_softmax of the scores, or use cross_entropy on the scores. With probabilities the loss lies "
        "between -1 and 0 and its gradient does not depend on how wrong the output is. False alarm: scores that "
        "are unnormalised on purpose."
    )
    diff: ClassVar[str] = (
        "- loss = F.nll_loss(output.softmax(-1), target)\n+ loss = F.cross_entropy(output, target)"
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = [loss for loss in of_kind(seen, "nll") if loss.high is not None]
        if not losses:
            return FINE if of_kind(seen, *CROSS_ENTROPY) else SKIP
        for loss in losses:
            high, excess = loss.high or 0.0, loss.excess or 0.0
            if high > 1e-3 or (excess > self.apart and loss.before in ("softmax", *LAYERS)):
                made = f"made by {loss.before}, " if loss.before else ""
                return wrong(
                    f"nll_loss is given values up to {high:.3g} instead of log-probabilities",
                    f"Inputs {made}up to {high:.3g}; |log of the sum of their exponentials| {excess:.3g}",
                )
        return FINE


class SigmoidBeforeBceLogits(ObservedRule):
    """`binary_cross_entropy_with_logits` is given probabilities, of which it takes a sigmoid again."""

    id: ClassVar[str] = "sigmoid-before-bce-logits"
    expected: ClassVar[str] = "Raw scores (logits): this loss takes the sigmoid itself"
    remedy: ClassVar[str] = (
        "Remove the sigmoid at the end of the model and take it where probabilities are shown, or use "
        "binary_cross_entropy. With both, no output gets below 0.5 or above 0.73, and the loss not below 0.31. "
        "False alarm: a mask or gate that is meant to be squashed twice."
    )
    diff: ClassVar[str] = "- output = torch.sigmoid(score)\n+ output = score"

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = of_kind(seen, "bce-logits")
        if not losses:
            return SKIP
        for loss in losses:
            if loss.before in ("sigmoid", "softmax"):
                return wrong(
                    f"binary_cross_entropy_with_logits is given the output of a {loss.before}",
                    f"A {loss.before} right before a loss that takes the sigmoid itself",
                )
        return FINE


class SoftmaxSingleUnit(ObservedRule):
    """A softmax over a single value: 1 whatever the model says."""

    id: ClassVar[str] = "softmax-single-unit"
    k: ClassVar[int] = 2
    n: ClassVar[int] = 2
    expected: ClassVar[str] = "A softmax over two or more classes, or a sigmoid over one score"
    remedy: ClassVar[str] = (
        "For two classes with one output use binary_cross_entropy_with_logits on the score; or give the model as many "
        "outputs as there are classes. As it is the model cannot learn at all."
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if not seen.losses:
            return SKIP
        for loss in seen.losses:
            if loss.normalised is not None and loss.normalised[1] == 1:
                return wrong(
                    f"A softmax over one value: the output of shape {shown(loss.shape)} is constant",
                    f"Softmax over dimension {loss.normalised[0]}, which has size 1, before {NAMES[loss.kind]}",
                )
        return FINE


class SoftmaxWrongDim(ObservedRule):
    """A softmax over the samples of a batch instead of over the classes."""

    id: ClassVar[str] = "softmax-wrong-dim"
    expected: ClassVar[str] = "A softmax over the classes: dim=1, or dim=-1"
    remedy: ClassVar[str] = (
        "Name the dimension of the classes: softmax(dim=-1) for outputs (batch, classes). False alarm: a "
        "distribution over the samples that is meant."
    )
    diff: ClassVar[str] = "- output.softmax(0)\n+ output.softmax(-1)"

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = [
            loss for loss in seen.losses if loss.normalised is not None and len(loss.shape) > 1
        ]
        if not losses:
            return SKIP
        for loss in losses:
            dimension = loss.normalised[0] if loss.normalised else -1
            samples, classes = loss.shape[:2]
            if dimension == 0 and samples > 1 and classes > 1 and samples != classes:
                return wrong(
                    f"The softmax runs over the {samples} samples of the batch, not over the classes",
                    f"Softmax over dimension 0 of an output of shape {shown(loss.shape)}",
                )
        return FINE


class ReluOnOutput(ObservedRule):
    """The model ends in a ReLU: it cannot say anything below 0."""

    id: ClassVar[str] = "relu-on-output"
    expected: ClassVar[str] = "An output that can take every value its targets call for"
    remedy: ClassVar[str] = (
        "Remove the ReLU after the last layer. Where the output must not be negative, softplus has a gradient "
        "everywhere. False alarm: counts or sizes, with targets that are never negative."
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if not seen.losses:
            return SKIP
        for loss in (loss for loss in seen.losses if loss.before == "relu"):
            low = loss.targets.low if loss.targets is not None else None
            scores = loss.kind in (*CROSS_ENTROPY, "bce-logits", "nll")
            below = not scores and low is not None and low < 0
            reason = f"targets reach down to {low:.3g}" if below else f"before {NAMES[loss.kind]}"
            return wrong(
                f"The model ends in a ReLU, {reason}",
                f"A ReLU right before {NAMES[loss.kind]}: no output below 0, no gradient where it is 0",
                "critical" if scores or below else "info",
            )
        return FINE


class OutputRangeMismatch(ObservedRule):
    """A bounded output is asked for values beyond its bounds."""

    id: ClassVar[str] = "output-range-mismatch"
    outside: ClassVar[Share] = 0.01
    """Share of the targets that may lie out of reach: room for outliers."""
    expected: ClassVar[str] = "Targets within the range of the last activation"
    remedy: ClassVar[str] = (
        "Scale the targets into the range, or end the model in a linear layer. As it is the loss stays above the part "
        "that cannot be reached, and the last layer saturates."
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = [loss for loss in of_kind(seen, *REGRESSION) if loss.targets is not None]
        if not losses:
            return SKIP
        for loss in losses:
            targets = loss.targets
            if targets is None or loss.before not in ("sigmoid", "tanh"):
                continue
            share = targets.outside_unit if loss.before == "sigmoid" else targets.outside_tanh
            bounds = "[0, 1]" if loss.before == "sigmoid" else "[-1, 1]"
            if share is not None and share > self.outside:
                return wrong(
                    f"A {loss.before} gives {bounds}, and {100 * share:.0f} % of the targets lie outside",
                    f"Targets from {targets.low:.3g} to {targets.high:.3g}; outputs within {bounds}",
                )
        return FINE


class LossBroadcast(ObservedRule):
    """Prediction and target have different shapes, and every prediction is compared with every target."""

    id: ClassVar[str] = "loss-broadcast"
    expected: ClassVar[str] = "Prediction and target of the same shape"
    remedy: ClassVar[str] = (
        "Give both the same shape: prediction.squeeze(-1), or target.unsqueeze(-1). As it is the model learns to "
        "predict the mean of all targets for every sample."
    )
    diff: ClassVar[str] = "- F.mse_loss(model(x), y)\n+ F.mse_loss(model(x).squeeze(-1), y)"

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        losses = of_kind(seen, *ELEMENTWISE)
        if not losses:
            return SKIP
        for loss in losses:
            if loss.wide and math.prod(loss.shape) > 1:
                return wrong(
                    f"The prediction {shown(loss.shape)} is stretched to {shown(loss.wide)} in {NAMES[loss.kind]}",
                    f"Prediction {shown(loss.shape)} and a target that make {shown(loss.wide)} together",
                )
        return FINE


class MultilabelLossMismatch(ObservedRule):
    """Binary cross-entropy on targets that name exactly one class each."""

    id: ClassVar[str] = "multilabel-loss-mismatch"
    single: ClassVar[Share] = 0.999
    """Share of the samples with exactly one class: where several are possible, one sample in a thousand has them."""
    expected: ClassVar[str] = (
        "Cross-entropy where each sample has one class; binary cross-entropy where it may have several"
    )
    remedy: ClassVar[str] = (
        "With one class a sample use cross_entropy on the scores, with whole-numbered labels."
    )

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        for loss in of_kind(seen, "bce", "bce-logits"):
            targets = loss.targets
            if targets is None or targets.rows_one_hot is None or loss.shape[-1:] < (3,):
                continue
            if targets.rows_one_hot >= self.single and targets.count >= 100 * loss.shape[-1] / 4:
                return wrong(
                    f"Every sample has one of {loss.shape[-1]} classes, and binary cross-entropy treats them apart",
                    f"{100 * targets.rows_one_hot:.0f} % of the target rows hold a single 1",
                    "info",
                )
            return FINE
        return SKIP
