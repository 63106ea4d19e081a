"""The norm over all gradients of an optimizer, and whether they are finite."""

import math

import torch
from torch import Tensor

from trainvitals.hooks import readout
from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.plain import flat, is_ordinary
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.stats import sum_of_squares, values_of

FEW = 1 << 17
"""Elements that are few: see `GradientNorm`."""
_AT_ONCE = 1 << 18
"""Elements of a single gradient up to which numpy sums up squares faster than torch."""
_ADDED_UP = 1 << 16
"""Elements whose squares the CPU adds up in float32 at once: of millions it loses so many digits that a norm is wrong
by up to 0.4 %."""
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
            only = as_numpy(gradients[0].detach()).reshape(-1)
            self.value: Number = math.sqrt(sum_of_squares(only))
            return
        norms = joined(gradients) if few else None
        if norms is None or len(norms) > _ADDED_UP:
            norms = _norms(gradients if norms is None else [norms])
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
            total = _exact_norm(gradients)
            self.value = number(total if scale is None else total / scale.to(total.device))


def _exact_norm(gradients: list[Tensor]) -> Tensor:
    """In float64, also of elements whose squares that does not hold."""
    norms = _norms(gradients, torch.float64)
    assert norms is not None
    total: Tensor = torch.linalg.vector_norm(norms)
    wide = [t for t in map(values_of, gradients) if t.dtype is torch.float64 and t.numel()]
    if not wide or not readout.on_host(total) or math.isfinite(float(total)):
        return total
    largest = max(tensor.abs().max() for tensor in wide)
    if not math.isfinite(float(largest)):
        return total
    parts = _norms([values_of(gradient) / largest for gradient in gradients], torch.float64)
    assert parts is not None
    found: Tensor = torch.linalg.vector_norm(parts) * largest
    return found


def _is_for_numpy(gradient: Tensor) -> bool:
    """Whether numpy sums up its squares faster than torch, which has more threads."""
    return gradient.numel() <= _AT_ONCE and is_ordinary(gradient)


def joined(tensors: list[Tensor]) -> Tensor | None:
    """All elements in one tensor of float32 or float64, a single tensor perhaps as a view; None where they do not
    fit into one."""
    if not tensors:
        return None
    try:
        whole: Tensor = torch._C._nn.flatten_dense_tensors(tensors)
    except (RuntimeError, NotImplementedError):  # sparse ones, or on several devices
        return None
    whole = whole.detach()
    return whole if whole.dtype.itemsize >= 4 else whole.float()


def _norms(tensors: list[Tensor], dtype: torch.dtype | None = None) -> Tensor | None:
    """Norm of each tensor as one tensor, on the first one's device; None for an empty list."""
    if not tensors:
        return None
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        dense = values_of(tensor)
        members = groups.setdefault((dense.device, dense.dtype), [])
        if readout.on_host(dense) and dense.numel() > _ADDED_UP:
            members.extend(torch.split(flat(dense).contiguous(), _ADDED_UP))
        else:
            members.append(dense)
    parts: list[Tensor] = []
    for (_, kind), members in groups.items():
        wider = dtype or (torch.float32 if kind.itemsize < 4 else kind)
        parts.append(torch.stack(torch._foreach_norm(members, 2, dtype=wider)))
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.to(parts[0].device, torch.float64) for part in parts])


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
