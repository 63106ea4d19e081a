"""Numbers of a loss call: its value, the range of its prediction, its labels."""

from collections.abc import Callable

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

Made = Callable[[Values], LossCall]


def ask(found: graph.Found, reading: Reading) -> tuple[Made, Tensor | None]:
    """Ask for the numbers of a loss call; how to make it of them, and its labels."""
    prediction, target = graph.saved(found.node, "self"), graph.saved(found.node, "target")
    if found.kind == "soft-cross-entropy":
        prediction = target = None
    numbers: dict[str, int] = {}
    if prediction is not None and prediction.is_floating_point() and prediction.numel():
        rows = max(1, _ELEMENTS // max(prediction[0].numel(), 1)) if prediction.dim() else 1
        part = prediction[:rows] if prediction.dim() else prediction
        numbers["range"] = reading.ask(torch.stack([part.amin(), part.amax()]).float())
        if target is not None:
            mean = _mean(found, part.float(), target[:rows] if target.dim() else target)
            if mean is not None:
                numbers["value"] = reading.ask(mean)
        if found.kind == "nll" and part.dim() > 1:
            numbers["excess"] = reading.ask(part.float().logsumexp(1).abs().median())
    ignored = getattr(found.node, "_saved_ignore_index", None)
    labels = targets.ask(target, reading, ignored) if target is not None else None

    def made(values: Values) -> LossCall:
        low, high = values[numbers["range"]] if "range" in numbers else (None, None)
        value, error = values[numbers["value"]] if "value" in numbers else (None, None)
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
            targets=labels.made(values) if labels is not None else None,
        )

    return made, target


def _mean(found: graph.Found, prediction: Tensor, target: Tensor) -> Tensor | None:
    """Mean loss of an element (of a label, for classes), unweighted, and its standard error; shape (2,)."""
    kept = torch.ones((), device=prediction.device)
    if found.kind in ("cross-entropy", "nll"):
        if target.dtype != torch.int64 or target.dim() != prediction.dim() - 1:
            return None
        kept = (target != found.node._saved_ignore_index).float()
        label = target.clamp(0, prediction.shape[1] - 1)
        each = -prediction.gather(1, label.unsqueeze(1)).squeeze(1)
    elif found.kind == "bce-logits":
        each = F.softplus(prediction) - prediction * target
    elif found.kind == "bce":
        low, high = (p.clamp_min(_SMALL).log() for p in (prediction, 1 - prediction))
        each = -(target * low + (1 - target) * high)
    elif found.kind == "mse":
        each = (prediction - target).square()
    else:
        return None
    kept = kept.expand_as(each)
    count = kept.sum()
    mean = (each * kept).sum() / count
    spread = ((each - mean).square() * kept).sum() / count
    return torch.stack([mean, (spread / count).sqrt()])
