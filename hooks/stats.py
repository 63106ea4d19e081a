"""Moments of one tensor in few passes that stay in the cache, on any device, without waiting for it.

On the CPU small tensors are read by numpy, whose calls take a fifth of the time of torch's; large ones by torch,
which has more threads. Numbers come from memory and never through `item()`.
"""

import math
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks import readout
from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.plain import Array, array, flat, stride
from trainvitals.hooks.plain import values as plain_values
from trainvitals.hooks.readout import Number
from trainvitals.hooks.registry import local

SUBSAMPLE_ABOVE = 1 << 20
"""Elements: above that mean, std, rms and the zero fraction come from a sub-sample."""
SUBSAMPLE = 1 << 16
"""Elements of that sub-sample, about: never less than half as many.

Of n independent elements with kurtosis k the std has a relative standard error of sqrt((k - 1) / (4 n)): 0.28 %
for a normal distribution (k = 3), so it is right within 1 % in 3.6 standard errors; rms likewise. Where few of the
elements are large, k and with it the error grow: 2 % where one in 100 is not zero. A share p, as of
zeros, has an error of sqrt(p (1 - p) / n), at most 0.2 %.
"""
_SMALL = 1 << 14
"""Elements up to which numpy is faster than torch."""
BLAS_AT_ONCE = 1 << 13
"""Elements that one BLAS call gets: it would start threads of its own for more than 10,000."""
_LARGE_PIECE = 1 << 15
"""Elements that are summed up in float32 without losing digits."""
CANCELLATION = 0.05
"""Below this share of variance in the mean square, std is taken from the centred values instead."""
_COUNTED_AT_ONCE = 1 << 22
"""Elements of a tensor whose non-finite values are counted at a time: temporaries stay below 32 MiB."""
_ONES = {np.dtype(kind): np.ones(BLAS_AT_ONCE, kind) for kind in (np.float32, np.float64)}


N = TypeVar("N", bound=Number, covariant=True)


class Moments(NamedTuple, Generic[N]):
    """Of one tensor, in the order of the columns; NaN and infinity in it show in the values."""

    mean: N
    std: N
    rms: N
    absmax: N
    zero_fraction: N
    """Share of exact zeros; NaN unless asked for."""
    nonfinite: N


@np.errstate(all="ignore")
def moments(tensor: Tensor, zeros: bool = False, values: Array | None = None) -> Moments[Number]:
    """Moments over all elements of what `plain` gave; `values`: what `plain.values` gave of it, if known.

    Right to 1e-4 (std relative to itself, mean relative to rms) at any scale and offset that float32 holds, from
    all elements up to `SUBSAMPLE_ABOVE` of them. `absmax` and `nonfinite` are always of the whole tensor.
    """
    if values is None:
        values = plain_values(tensor)
    if values is None or len(values) > _SMALL:
        if not readout.on_host(tensor):
            return _late(tensor, zeros)
        return _large(tensor, zeros)
    low, high = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
    return finish(values, sums(values), (low, high), values, zeros)


def _large(tensor: Tensor, zeros: bool) -> Moments[float]:
    whole = part = flat(tensor)
    low, high = torch.aminmax(_comparable(whole))
    if len(whole) > SUBSAMPLE_ABOVE:
        part = whole[:: stride(tensor, SUBSAMPLE)].contiguous()
    if part.dtype not in (torch.float32, torch.float64):
        part = part.float()
    pieces = torch.split(part, _LARGE_PIECE)
    squares = math.fsum(float(torch.dot(piece, piece).numpy()) for piece in pieces)
    total = float(part.sum().numpy())
    bounds = float(low.float().numpy()), float(high.float().numpy())
    if whole.dtype is torch.float64:
        bounds = float(low.numpy()), float(high.numpy())
    return finish(as_numpy(part), (total, squares), bounds, whole, zeros)


def finish(
    values: Array,
    found: tuple[float, float],
    bounds: tuple[float, float],
    whole: Array | Tensor,
    zeros: bool,
) -> Moments[float]:
    """From sum and sum of squares of `values`, and the smallest and largest of the whole tensor."""
    low, high = bounds
    total, squares = found
    absmax = high if high > -low else -low
    count = len(values)
    zero = math.nan
    if zeros:
        zero = 0.0 if low > 0 or high < 0 else np.count_nonzero(values == 0) / count
    bad, unit = 0.0, 1.0
    if not absmax < math.inf:  # NaN too
        bad = count_nonfinite(whole)
        absmax = math.nan if low != low or high != high else math.inf
    elif absmax and not 1e-15 < absmax < 1e15:  # squares beyond float32, or even float64
        unit = absmax
        values = values / np.float64(unit)
        total, squares = sums(values)
    mean, square = total / count, squares / count
    variance = square - mean * mean
    if variance < CANCELLATION * square:
        total, squares = sums(values - values.dtype.type(mean))
        offset = total / count
        variance = max(squares / count - offset * offset, 0.0)
    return Moments(
        mean * unit, math.sqrt(variance) * unit, math.sqrt(square) * unit, absmax, zero, bad
    )


def sums(values: Array) -> tuple[float, float]:
    """Sum and sum of squares."""
    ones = _ONES[values.dtype]
    count = len(values)
    if count <= BLAS_AT_ONCE:
        return float(values.dot(ones[:count])), float(values.dot(values))
    total = squares = 0.0
    for begin in range(0, count, BLAS_AT_ONCE):
        piece = values[begin : begin + BLAS_AT_ONCE]
        total += float(piece.dot(ones if len(piece) == BLAS_AT_ONCE else ones[: len(piece)]))
        squares += float(piece.dot(piece))
    return total, squares


@np.errstate(all="ignore")
def sum_of_squares(values: Array, exact: bool = True) -> float:
    """Sum of squares; if `exact`, also of values whose squares float32 does not hold."""
    if len(values) <= BLAS_AT_ONCE:
        squares = float(values.dot(values))
    else:
        pieces = (
            values[begin : begin + BLAS_AT_ONCE] for begin in range(0, len(values), BLAS_AT_ONCE)
        )
        squares = sum(float(piece.dot(piece)) for piece in pieces)
    if exact and not 1e-28 < squares < 1e30 and values.dtype != np.float64:
        return sum_of_squares(values.astype(np.float64))
    return squares


def share_unchanged(after: Array, before: Array) -> float:
    """Share of elements that kept all of their bits."""
    bits = np.int32 if before.dtype == np.float32 else np.int64
    return float(np.count_nonzero(after.view(bits) == before.view(bits))) / len(before)


def _comparable(whole: Tensor) -> Tensor:
    """The same in a type that can be compared: float8 cannot."""
    return whole if whole.dtype.itemsize > 1 else whole.to(torch.bfloat16)


def count_nonfinite(whole: Array | Tensor) -> float:
    """How many elements of an array, or of a flat tensor on the CPU, are NaN or infinite."""
    if not isinstance(whole, Tensor):
        return float(np.count_nonzero(~np.isfinite(whole)))
    pieces = torch.split(whole, _COUNTED_AT_ONCE)
    return float(sum(np.count_nonzero(~np.isfinite(array(piece))) for piece in pieces))


def _late(tensor: Tensor, zeros: bool) -> Moments[Number]:
    """The same as tensors of one element on the tensor's device."""
    whole = flat(tensor)
    low, high = torch.aminmax(_comparable(whole))
    part = whole[:: stride(tensor, SUBSAMPLE if len(whole) > SUBSAMPLE_ABOVE else len(whole))]
    # float64 holds every square; Metal has none
    part = part.to(torch.float32 if part.device.type == "mps" else torch.float64)
    pieces = [(~torch.isfinite(piece)).sum() for piece in torch.split(whole, _COUNTED_AT_ONCE)]
    return Moments(
        part.mean(),
        part.std(correction=0),
        part.square().mean().sqrt(),
        torch.maximum(low.abs(), high.abs()),
        (part == 0).to(part.dtype).mean() if zeros else math.nan,
        pieces[0] if len(pieces) == 1 else torch.stack(pieces).sum(),
    )


def values_of(tensor: Tensor) -> Tensor:
    """The dense values of `tensor`: for a sparse gradient those of the rows it touches, of a distributed one the
    shard that lies here."""
    tensor = local(tensor)
    if tensor.is_sparse:
        return tensor.coalesce().values()
    return tensor


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
