"""Whether the gradient goes on in the direction of those before it, or turns back."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainvitals.hooks.plain import flat, plain, stride
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.registry import Parameter

MATRICES = 8
"""Weight matrices that are looked at, spread evenly over those there are."""
ELEMENTS = 1 << 10
"""Elements of each: a cosine over 8,192 of them has a standard error of 0.011."""
_MEANS = ("momentum_buffer", "exp_avg")
"""Under which names optimizers keep the running mean, or sum, of their gradients."""


def alongside(optimizer: Optimizer, parameters: Sequence[Parameter]) -> Number | None:
    """Cosine between the gradients of the step and the mean of those before; None where none is kept.

    Call it before the optimizer steps. Noise gives 0, a steady descent 1. A step that overshoots a valley gives less
    than 0: momentum that is stationary and shorter than that of pure noise. The scale of the gradients does not matter,
    so that they may be clipped or still multiplied by a scaler.
    """
    matrices = [p.tensor for p in parameters if p.tensor.dim() > 1 and p.tensor.grad is not None]
    pairs = [_pair(optimizer, tensor) for tensor in matrices[:: max(1, len(matrices) // MATRICES)]]
    known = [pair for pair in pairs[:MATRICES] if pair is not None]
    known = [pair for pair in known if pair[0].device == known[0][0].device]
    if not known:
        return None
    gradient = torch.cat([one for one, _ in known]).float()
    mean = torch.cat([other for _, other in known]).float()
    found = number(torch.dot(gradient, mean) / (gradient.norm() * mean.norm()))
    return None if isinstance(found, float) and math.isnan(found) else found


def _pair(optimizer: Optimizer, tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """Some elements of a gradient, and of the mean of those before."""
    state: dict[str, Any] = optimizer.state.get(tensor, {})
    kept = next((state[name] for name in _MEANS if isinstance(state.get(name), Tensor)), None)
    if kept is None or tensor.grad is None:
        return None
    gradient, mean = plain(tensor.grad), plain(kept)
    if gradient is None or mean is None or _place(gradient) != _place(mean):
        return None
    step = stride(gradient, ELEMENTS)
    return flat(gradient)[::step], flat(mean)[::step]


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """How and where its elements lie: those of a sparse gradient are others than those of its mean."""
    return tensor.shape, tensor.stride(), tensor.device
