"""Moments of one tensor in few fused passes, on any device, without waiting for it."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks.readout import Number, number

SUBSAMPLE_ABOVE = 1 << 20
"""Elements: beyond that everything but the largest size is taken from a strided sub-sample."""
_CANCELLATION = 0.05
"""Below this share of variance in the mean square, std is taken from the centred values instead."""


class Moments(NamedTuple):
    """Of one tensor; NaN and infinity in it show in the values."""

    mean: Number
    std: Number
    rms: Number
    absmax: Number
    nonfinite: Number


def subsample(tensor: Tensor, limit: int = SUBSAMPLE_ABOVE) -> Tensor:
    """`tensor` flat: whole up to `limit` elements, else every k-th one, `limit` of them or a few less.

    The stride k shares no factor with any dimension, so that every row and column is met evenly.
    """
    flat = _flat(tensor)
    if flat.numel() <= limit:
        return flat
    stride = math.ceil(flat.numel() / limit)
    while any(math.gcd(stride, size) > 1 for size in tensor.shape if size > 1):
        stride += 1
    return flat[::stride]


def _flat(tensor: Tensor) -> Tensor:
    """All elements in one dimension: in memory order, without a copy, where the memory has no holes."""
    flat = tensor.detach()
    if flat.is_contiguous():
        return flat.view(-1)
    if flat.dim() == 4 and flat.is_contiguous(memory_format=torch.channels_last):
        return flat.permute(0, 2, 3, 1).reshape(-1)
    return flat.reshape(-1)


def values_of(tensor: Tensor) -> Tensor:
    """The dense values of `tensor`: for a sparse gradient those of the rows it touches."""
    if tensor.is_sparse:
        return tensor.coalesce().values()
    return tensor


def moments(tensor: Tensor) -> Moments:
    """Moments over all elements of a floating tensor that has some.

    Accumulated in float32 at least. Above `SUBSAMPLE_ABOVE` elements mean, std and rms come from `subsample`;
    the largest size and the non-finite count are always of the whole tensor.
    """
    whole = values_of(tensor).detach()
    part = _at_least_float32(subsample(whole))
    low, high = torch.aminmax(_flat(whole))
    norm = torch.linalg.vector_norm(part)
    mean = part.mean()
    if whole.device.type != "cpu":
        centred = torch.linalg.vector_norm(part - mean)
        root = math.sqrt(part.numel())
        bad = (~torch.isfinite(whole)).sum()
        absmax = torch.maximum(low.abs(), high.abs())
        return Moments(mean, centred / root, norm / root, absmax, bad)
    return _on_host(whole, part, mean.item(), norm.item(), (low.item(), high.item()))


def _on_host(
    whole: Tensor, part: Tensor, mean: float, norm: float, bounds: tuple[float, float]
) -> Moments:
    low, high = bounds
    count = part.numel()
    nonfinite = 0.0
    if not (math.isfinite(low) and math.isfinite(high)):
        nonfinite = float(whole.numel() - torch.isfinite(whole).sum().item())
    elif not math.isfinite(norm):  # squares beyond float32
        norm = torch.linalg.vector_norm(part, dtype=torch.float64).item()
        mean = part.mean(dtype=torch.float64).item()
    mean_square = norm * norm / count
    variance = mean_square - mean * mean
    if variance < _CANCELLATION * mean_square:
        centred = torch.linalg.vector_norm(part - mean).item()
        variance = centred * centred / count
    absmax = math.nan if math.isnan(low) or math.isnan(high) else max(abs(low), abs(high))
    return Moments(mean, math.sqrt(variance), math.sqrt(mean_square), absmax, nonfinite)


def _at_least_float32(tensor: Tensor) -> Tensor:
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    return tensor.float()


def zero_fraction(tensor: Tensor) -> Number:
    """Share of exact zeros, of the sub-sample for a large tensor."""
    part = subsample(tensor)
    if part.device.type == "cpu" and part.dtype in (torch.float32, torch.float64):
        # several times as fast as torch's, which counts element by element
        return 1.0 - np.count_nonzero(part.numpy()) / part.numel()
    zeros = part.numel() - torch.count_nonzero(part)
    return number(zeros / part.numel())


def has_nan_or_inf(tensor: Tensor) -> bool:
    """Whether a CPU tensor holds NaN or +infinity; -infinity alone is an intended mask.

    One pass where all is well: a sum can only be finite when nothing in it is not.
    """
    if tensor.dtype is torch.float32:
        total = tensor.sum().item()
    else:
        total = tensor.sum(dtype=torch.float32 if tensor.dtype.itemsize < 4 else None).item()
    if math.isfinite(total):
        return False
    return bool((torch.isnan(tensor) | torch.isposinf(tensor)).any())
