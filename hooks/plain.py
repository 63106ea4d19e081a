"""From whatever tensor a model works with to plain real numbers in memory order, without copying if possible."""

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch._C import _functorch

from trainvitals.hooks import readout
from trainvitals.hooks.asnumpy import as_numpy

Array: TypeAlias = npt.NDArray[np.floating[Any]]
"""One dimension, float32 or float64."""

_FEW = 1 << 16
"""Elements that may be copied to another type."""
_ORDINARY = (Tensor, torch.nn.Parameter)


def plain(tensor: Tensor) -> Tensor | None:
    """The dense real values of `tensor` without its graph; None where there is nothing to measure.

    Of a sparse tensor those are the values it stores (summed where an index comes twice), of a nested one the
    values of all its parts, of a distributed one the local shard, of a complex one its real and imaginary parts.
    Integers, quantised numbers and empty tensors give None. The tensor itself is never changed.
    """
    while _functorch.is_functorch_wrapped_tensor(tensor):  # inside torch.func transforms
        tensor = _functorch.get_unwrapped(tensor)
    tensor = tensor.detach()
    if type(tensor) not in _ORDINARY or tensor.layout is not torch.strided or tensor.is_nested:
        unpacked = _unpack(tensor)
        if unpacked is None:
            return None
        tensor = unpacked
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def _unpack(tensor: Tensor) -> Tensor | None:
    """The one ordinary tensor inside a special one; None if there is none."""
    to_local = getattr(tensor, "to_local", None)
    if to_local is not None:  # DTensor
        tensor = to_local().detach()
    if tensor.is_nested:
        return tensor.values().detach()
    if tensor.layout is torch.sparse_coo:
        return tensor.coalesce().values()
    if tensor.layout is not torch.strided:
        read = getattr(tensor, "values", None)
        return read() if tensor.is_sparse_csr and read is not None else None
    # Whoever has taken all of torch's operations into his own hands may hold no values, or others.
    return tensor if type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__ else None


def is_ordinary(tensor: Tensor) -> bool:
    """Whether numpy can see the elements of a tensor of float32 as they are, in order."""
    return (
        type(tensor) is Tensor
        and tensor.dtype is torch.float32
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
    )


def flat(tensor: Tensor) -> Tensor:
    """All elements of a plain tensor in one dimension: without a copy where its memory has no holes."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(order).reshape(-1)  # a view for channels_last and transposed ones


def stride(tensor: Tensor, limit: int) -> int:
    """Step at which about `limit` elements of the flat `tensor` are met, never less than half as many; 1 takes all.

    It shares no factor with any dimension, so that every row and column is met evenly.
    """
    return even_step(tensor.numel(), tensor.shape, limit)


def even_step(count: int, sizes: Iterable[int], limit: int) -> int:
    """The same for `count` elements, of whose dimensions only numbers are known that these divide."""
    nearest = max(1, round(count / limit))
    sizes = [size for size in sizes if size > 1]
    steps = (step for away in range(nearest) for step in (nearest + away, nearest - away))
    return next(step for step in steps if all(math.gcd(step, size) == 1 for size in sizes))


def array(flat: Tensor) -> Array:
    """A flat tensor on the CPU as numpy sees it; types that numpy lacks or is slow in become float32."""
    if flat.dtype is not torch.float32 and flat.dtype is not torch.float64:
        flat = flat.to(torch.float32)
    return as_numpy(flat)


def values(tensor: Tensor) -> Array | None:
    """The elements of a plain tensor as numpy sees them; None where that would copy many or wait for a device."""
    if not readout.on_host(tensor):
        return None
    if tensor.dtype is torch.float32 or tensor.dtype is torch.float64:
        return as_numpy(tensor if tensor.is_contiguous() else flat(tensor)).reshape(-1)
    return array(flat(tensor)) if tensor.numel() <= _FEW else None
