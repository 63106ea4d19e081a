"""The norm over all gradients of an optimizer, and whether they are finite."""

import math

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks import readout
from trainvitals.hooks.plain import flat, is_ordinary, plain, values
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.stats import sum_of_squares, values_of

FEW = 1 << 15
"""Elements that are few: see `GradientNorm`."""
_NUMPY_UNTIL = 1 << 14
"""Elements up to which numpy sums up squares faster than torch."""
_AT_ONCE = 1 << 18
"""Elements of all gradients together up to which that is so."""
_ADDED_UP = 1 << 16
"""Elements whose squares are added up in float32 at once: of millions, it loses so many digits that a norm is wrong by
up to 0.4 %."""
_TINY_NORM = 1e-14
"""A norm below that may lack elements whose squares float32 does not hold."""


class GradientNorm:
    """The global norm over the gradients of one optimizer."""

    def __init__(
        self, gradients: list[Tensor], scale: Tensor | None = None, few: bool = False
    ) -> None:
        """`scale`: what a gradient scaler left the gradients multiplied with (fused optimizers).

        `few`: there are so few elements that one copy and one norm are faster than a norm for each tensor.
        """
        if scale is None and len(gradients) == 1 and _is_for_numpy(gradients[0]):
            only = gradients[0].detach().numpy().reshape(-1)
            self.value: Number = math.sqrt(sum_of_squares(only))
            return
        norms = joined(gradients) if few else None
        if norms is None:
            norms = _norms(gradients)
        if norms is None:
            self.value = 0.0
            return
        total = torch.linalg.vector_norm(norms)
        if scale is not None:
            total = total / scale.to(total.device)
        self.value = number(total)
        if isinstance(self.value, float) and (math.isinf(self.value) or self.value < _TINY_NORM):
            # Finite gradients can overflow when squared in float32, or vanish. They never make a NaN, which may come at
            # every step from now on and is not looked at again.
            exact = _norms(gradients, torch.float64)
            assert exact is not None
            total = torch.linalg.vector_norm(exact)
            self.value = number(total if scale is None else total / scale.to(total.device))


def _is_for_numpy(gradient: Tensor) -> bool:
    """Whether numpy sums up its squares faster than torch, which has more threads."""
    return gradient.numel() <= _AT_ONCE and is_ordinary(gradient)


def joined(tensors: list[Tensor]) -> Tensor | None:
    """All elements in one tensor of float32 or float64, a single tensor perhaps as a view; None where they do not
    fit into one."""
    if not tensors:
        return None
    try:
        flat: Tensor = torch._C._nn.flatten_dense_tensors(tensors)
    except (RuntimeError, NotImplementedError):  # sparse ones, or on several devices
        return None
    flat = flat.detach()
    return flat if flat.dtype.itemsize >= 4 else flat.float()


def _norms(tensors: list[Tensor], dtype: torch.dtype | None = None) -> Tensor | None:
    """Norm of each tensor as one tensor, on the first one's device; None for an empty list."""
    if not tensors:
        return None
    if dtype is None and all(map(readout.on_host, tensors)):
        squares = [_square(tensor) for tensor in tensors]
        return torch.from_numpy(np.sqrt(np.array(squares)))
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        dense = values_of(tensor)
        groups.setdefault((dense.device, dense.dtype), []).append(dense)
    parts: list[Tensor] = []
    for (_, kind), members in groups.items():
        wider = dtype or (torch.float32 if kind.itemsize < 4 else kind)
        parts.append(torch.stack(torch._foreach_norm(members, 2, dtype=wider)))
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.to(parts[0].device, torch.float64) for part in parts])


def _square(tensor: Tensor) -> float:
    """Sum of squares of a tensor on the CPU."""
    dense = plain(tensor)
    if dense is None:
        return 0.0
    found = values(dense) if dense.numel() <= _NUMPY_UNTIL else None
    if found is not None:
        return sum_of_squares(found, exact=False)
    wide = torch.float64 if dense.dtype is torch.float64 else torch.float32
    whole = flat(dense).contiguous()
    if len(whole) <= _ADDED_UP:
        return float(torch.linalg.vector_norm(whole, dtype=wide).numpy()) ** 2
    rest = len(whole) % _ADDED_UP
    parts = whole[:rest], whole[rest:].view(-1, _ADDED_UP)
    norms = [torch.linalg.vector_norm(part, dim=-1, dtype=wide).numpy() for part in parts]
    return sum(float(np.square(norm, dtype=np.float64).sum()) for norm in norms)


def root_of_squares(norms: list[Number]) -> Number:
    """The norm over several groups of gradients, from the norm of each."""
    if len(norms) == 1:
        return norms[0]
    total: Number = 0.0
    for norm in norms:
        total = total + norm * norm
    return total**0.5


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether CPU tensors hold only finite values."""
    norms = _norms(tensors)
    if norms is None or math.isfinite(float(norms.sum().cpu().numpy())):
        return True
    return all(bool(torch.isfinite(values_of(tensor)).all()) for tensor in tensors)
