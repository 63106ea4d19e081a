"""Numbers of a loss call: its value, the range of its prediction, its labels."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from trainvitals.hooks.observe import graph, targets
from trainvitals.hooks.observe.reading import Reading, Values, first
from trainvitals.hooks.wire.observed import LossCall

MOST_CALLS = 8
"""Loss calls of a step that are told."""
_ELEMENTS = 1 << 18
_SMALL = 1e-12
_PREDICTED = 4096
"""Samples whose predicted classes are counted."""

Made = Callable[[Values], LossCall]


def ask(found: graph.Found, reading: Reading, valued: bool = True) -> tuple[Made, Tensor | None]:
    """Ask for the numbers of a loss call; how to make it of them, and its labels.

    `valued`: its value and error, too, which take the most operations.
    """
    prediction, target = graph.saved(found.node, "self"), graph.saved(found.node, "target")
    if found.kind == "soft-cross-entropy":
        prediction = target = None
    if target is not None and not target.dim():  # a sample alone: as a batch of one
        target = target.unsqueeze(0)
        if prediction is not None and prediction.dim() < 2:
            prediction = prediction.unsqueeze(0)
    numbers: dict[str, int] = {}
    if prediction is not None and prediction.is_floating_point() and prediction.numel():
        rows = max(1, _ELEMENTS // max(prediction[0].numel(), 1)) if prediction.dim() else 1
        part = prediction[:rows] if prediction.dim() else prediction
        if part.itemsize < 4:
            part = part.float()
        if found.kind != "cross-entropy":  # whose graph holds no scores, but their log-softmax
            numbers["range"] = reading.ask(torch.stack(part.aminmax()))
        if target is not None and valued:
            sums = _sums(found, part, target[:rows] if target.dim() else target)
            if sums is not None:
                numbers["value"] = reading.ask(sums)
        if found.kind == "nll" and part.dim() > 1:
            numbers["excess"] = reading.ask(part.logsumexp(1).abs().median())
        classes = _predicted(found, part, target) if target is not None else None
        if classes is not None:
            numbers["classes"] = reading.ask(classes)
        elif found.kind == "mse":
            numbers["spread"] = reading.ask(part.var(correction=0).sqrt())
    ignored = graph.ignored_by(found.node)
    labels = targets.ask(target, reading, ignored) if target is not None else None

    def made(values: Values) -> LossCall:
        low, high = values[numbers["range"]] if "range" in numbers else (None, None)
        value, error = _mean(values[numbers["value"]]) if "value" in numbers else (None, None)
        return LossCall(
            kind=found.kind,
            before=found.before,
            shape=found.shape,
            wide=found.wide,
            normalised=found.normalised,
            reduction=found.reduction,
            value=value,
            error=error,
            low=low,
            high=high,
            excess=first(values, numbers.get("excess")),
            predicted=targets.counted(np.array(values[numbers["classes"]]))
            if "classes" in numbers
            else {},
            spread=first(values, numbers.get("spread")),
            targets=labels.made(values) if labels is not None else None,
        )

    return made, target


def _predicted(found: graph.Found, prediction: Tensor, target: Tensor) -> Tensor | None:
    """The class that each sample is given, shape `(n,)`, -1 where its label is to be ignored.

    None where it is not one class a sample. `prediction`: of the first samples of the batch.
    """
    prediction = prediction[:_PREDICTED]
    target = target[: len(prediction)]
    if found.kind in ("cross-entropy", "nll") and prediction.dim() == 2 and target.dim() == 1:
        ignored = graph.ignored_by(found.node)
        classes = prediction.argmax(1)
        return classes if ignored is None else classes.masked_fill(target == ignored, -1)
    if found.kind in ("bce", "bce-logits") and prediction.numel() == len(prediction):
        return (prediction > (0.5 if found.kind == "bce" else 0.0)).long().reshape(-1)
    return None


def _sums(found: graph.Found, prediction: Tensor, target: Tensor) -> Tensor | None:
    """Sum of the elements' (labels') losses, of their squares, and their number, unweighted; shape (3,)."""
    count = None
    if found.kind in ("cross-entropy", "nll"):
        if target.dtype != torch.int64 or target.dim() != prediction.dim() - 1:
            return None
        ignored = graph.ignored_by(found.node)
        each = F.nll_loss(prediction, target, ignore_index=ignored or 0, reduction="none")
        count = target.ne(ignored or 0).sum()
    elif found.kind == "bce-logits":
        each = F.softplus(prediction) - prediction * target
    elif found.kind == "bce":
        low, high = (p.clamp_min(_SMALL).log() for p in (prediction, 1 - prediction))
        each = -(target * low + (1 - target) * high)
    elif found.kind == "mse":
        each = (prediction - target).square()
    else:
        return None
    if count is None:
        count = each.new_full((), each.numel())
    return torch.stack([each.sum(), each.square().sum(), count.to(each.dtype)])


def _mean(sums: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean loss and its standard error."""
    total, squares, count = sums
    if not count:
        return None, None
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean * mean, 0.0) / count)
