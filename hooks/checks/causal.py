"""Whether a model that predicts the next token has seen it: outputs must not depend on later tokens."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from trainvitals.hooks.checks.subject import Batch, Subject, inputs_of, mapped, target_of
from trainvitals.hooks.checks.verdicts import failed, passed, skipped
from trainvitals.hooks.registry import tensors_in
from trainvitals.hooks.wire.observed import Checked

LEAST = 4
"""Tokens of a sample."""
SHIFTED = 0.99
"""Share of the targets that must be the token after, for a next-token prediction: padding may differ."""
LEAK = 1e-4
"""Relative difference of an output, in float32. Rounding of another summation order stays below 1e-5."""


class Tokens(NamedTuple):
    """A batch of a next-token prediction."""

    tokens: Tensor
    """Whole numbers, `(samples, length)`."""
    changed: Batch
    """The batch with other tokens from the middle on."""
    middle: int


def causal_leak(subject: Subject) -> Iterator[Checked]:
    """Other tokens from the middle on change no output before it, where the targets are the tokens one further."""
    batch = subject.batches[0]
    found = _next_token(batch)
    if found is None:
        yield skipped(
            "causal-leak", "known for tokens whose targets are the tokens one further only"
        )
        return
    model = subject.copied().model.eval().float()
    with torch.no_grad():
        whole, again, other = (
            _by_position(subject.output(model, one), found.tokens)
            for one in (batch, batch, found.changed)
        )
    if whole is None or again is None or other is None:
        yield skipped("causal-leak", "the output has no value for each token")
        return
    size = float(whole.abs().amax()) or 1.0
    noise = float((whole - again).abs().amax()) / size
    each = (whole - other)[:, : found.middle].abs().amax(dim=(0, 2)) / size
    gap = float(each.amax())
    if float((whole - other).abs().amax()) == 0:
        yield skipped("causal-leak", "the output does not depend on the tokens at all")
        return
    yield (
        failed(
            "causal-leak",
            "critical",
            f"outputs of {int((each > LEAK).sum())} of {found.middle} tokens change by up to {gap:.2g} of their size "
            "when tokens after them do",
            "an output depends on the tokens up to its own, as it has to predict the next one",
            "Mask attention to later tokens (is_causal=True, or an upper triangular mask), pad convolutions on the "
            "left only, use no bidirectional recurrent layer and no norm or mean over the sequence.",
        )
        if gap > max(LEAK, 10 * noise)
        else passed("causal-leak", f"no output depends on later tokens ({gap:.2g})")
    )


def _next_token(batch: Batch) -> Tokens | None:
    """The batch, where it is a next-token prediction; None for anything else.

    Of a mapping `labels` that are its `input_ids`: the convention of models that shift them by themselves. Labels to
    ignore are negative. Else targets that are the inputs one token further.
    """
    inputs, target = inputs_of(batch), target_of(batch)
    shift = 1
    if isinstance(inputs, Mapping):
        tokens, target, shift = inputs.get("input_ids"), inputs.get("labels"), 0
    else:
        tokens = inputs[0] if inputs else None
    if not _are_tokens(tokens) or not _are_tokens(target) or tokens.shape != target.shape:
        return None
    told = target[:, : tokens.shape[1] - shift]
    known = told >= 0
    hits = (tokens[:, shift:] == told) & known
    if not bool(known.any()) or float(hits.sum() / known.sum()) < SHIFTED:
        return None
    if shift == 0 and float(known.float().mean()) < 0.5:
        return None  # some tokens only: those that are masked in the input, or an answer
    middle = tokens.shape[1] // 2
    other = _with_others(tokens, middle)
    if other is None:
        return None
    changed = mapped(batch, lambda tensor: other if tensor is tokens else tensor)
    return Tokens(tokens, changed, middle)


def _are_tokens(value: Any) -> TypeGuard[Tensor]:
    return (
        isinstance(value, Tensor)
        and value.dtype in (torch.int64, torch.int32)
        and value.dim() == 2
        and value.shape[1] >= LEAST
    )


def _with_others(tokens: Tensor, middle: int) -> Tensor | None:
    """Every token from `middle` on is another one of the batch; None where there is only one."""
    classes = sorted(set(tokens.reshape(-1).tolist()))
    if len(classes) < 2:
        return None
    known = tokens.new_tensor(classes)
    place = torch.searchsorted(known, tokens[:, middle:].contiguous())
    other = tokens.clone()
    other[:, middle:] = known[(place + 1) % len(known)]
    return other


def _by_position(output: Any, tokens: Tensor) -> Tensor | None:
    """Values of each token, `(samples, length, values)`; None where the output is not made like that."""
    logits = (
        output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    )
    tensor = logits if isinstance(logits, Tensor) else next(tensors_in(output, limit=1), None)
    if tensor is None or not tensor.is_floating_point():
        return None
    samples, length = tokens.shape
    if tensor.dim() == 3 and tensor.shape[:2] == (samples, length):
        return tensor.float()
    if tensor.dim() == 3 and (tensor.shape[0], tensor.shape[2]) == (samples, length):
        return tensor.float().transpose(1, 2)
    if tensor.dim() == 2 and tensor.shape[0] == samples * length:
        return tensor.float().reshape(samples, length, -1)
    return None
