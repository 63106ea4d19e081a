"""Whether the gradient goes on in the direction of those before it, or turns back."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.memory import SAMPLE, Memory, alike
from trainvitals.hooks.plain import Array, array, flat, is_ordinary, plain, stride
from trainvitals.hooks.readout import Number, number, on_host
from trainvitals.hooks.registry import Parameter

MATRICES = 8
"""Weight matrices that are looked at, spread evenly over those there are.

A cosine over `SAMPLE` elements of each, 8,192 in all, has a standard error of 0.011.
"""
_MEANS = ("momentum_buffer", "exp_avg")
"""Under which names optimizers keep the running mean, or sum, of their gradients."""


def alongside(
    optimizer: Optimizer, parameters: Sequence[Parameter], memory: Memory
) -> Number | None:
    """Cosine between the gradients of the step and the mean of those before; None where none is kept.

    Call it before the optimizer steps. Noise gives 0, a steady descent 1. A step that overshoots a valley gives less
    than 0: momentum that is stationary and shorter than that of pure noise. The scale of the gradients does not
    matter, so that they may be clipped or still multiplied by a scaler. `memory`: kept between samples.
    """
    matrices = [p.tensor for p in parameters if p.tensor.dim() > 1 and p.tensor.grad is not None]
    chosen = matrices[:: max(1, len(matrices) // MATRICES)][:MATRICES]
    pairs = [_pair(optimizer, tensor, memory) for tensor in chosen]
    known = [pair for pair in pairs if pair is not None]
    here = [(one, other) for one, other, device in known if device is None]
    if here:
        return _cosine(here)
    if not known:
        return None
    gradient = torch.cat([one for one, _, device in known if device == known[0][2]]).float()
    mean = torch.cat([other for _, other, device in known if device == known[0][2]]).float()
    return number(torch.dot(gradient, mean) / (gradient.norm() * mean.norm()))


def _cosine(pairs: Sequence[tuple[Array, Array]]) -> float | None:
    parts = [one for one, _ in pairs] + [other for _, other in pairs]
    both = np.concatenate(parts, axis=None, dtype=np.float64)
    gradient, mean = both[: len(both) // 2], both[len(both) // 2 :]
    with np.errstate(all="ignore"):
        size = math.sqrt(gradient.dot(gradient)) * math.sqrt(mean.dot(mean))
        found = float(gradient.dot(mean)) / size if size else math.nan
    return found if math.isfinite(found) else None


def _pair(
    optimizer: Optimizer, tensor: Tensor, memory: Memory
) -> tuple[Any, Any, torch.device | None] | None:
    """Some elements of a gradient and of the mean of those before: arrays, or tensors and the device they are on."""
    state: dict[str, Any] = optimizer.state.get(tensor, {})
    kept = next((state[name] for name in _MEANS if isinstance(state.get(name), Tensor)), None)
    gradient = tensor.grad
    if kept is None or gradient is None:
        return None
    mean = memory.sample(kept)
    if mean is not None and is_ordinary(gradient) and gradient.numel() == kept.numel():
        return alike(mean, as_numpy(gradient.detach()).reshape(-1)), mean, None
    one, other = plain(gradient), plain(kept)
    if one is None or other is None or _place(one) != _place(other):
        return None
    step = stride(one, SAMPLE)
    some, others = flat(one)[::step], flat(other)[::step]
    return (array(some), array(others), None) if on_host(some) else (some, others, some.device)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """How and where its elements lie: those of a sparse gradient are others than those of its mean."""
    return tensor.shape, tensor.stride(), tensor.device
