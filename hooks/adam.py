"""The update that Adam makes, in units of the learning rate, from what the optimizer keeps."""

import math
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Adam, Optimizer

from trainvitals.hooks import readout
from trainvitals.hooks.plain import array, flat, plain, stride
from trainvitals.hooks.readout import Number, number

SUBSAMPLE = 1 << 12
"""Elements of a larger parameter that are looked at.

The factor's relative standard error is at most sqrt((k - 1) / (4 n)) for n elements whose update has kurtosis k:
1.1 % for k = 3. A share p has sqrt(p (1 - p) / n), at most 0.8 points.
"""
_FEW_EPS = 10.0
"""Multiples of eps below which the root of the second moment does not rule the update any more."""
NOTHING: tuple[Number, Number] = (math.nan, math.nan)


class AdamUpdate:
    """Reads what Adam and AdamW (and optimizers derived from them) keep for each parameter."""

    def __init__(self, optimizer: Optimizer | None) -> None:
        self._state: Any = {}
        self._groups: dict[int, dict[str, Any]] = {}
        if isinstance(optimizer, Adam):  # AdamW is one
            self._state = optimizer.state
            for group in optimizer.param_groups:
                self._groups.update((id(parameter), group) for parameter in group["params"])

    def of(self, parameter: Tensor) -> tuple[Number, Number]:
        """Update factor and share of elements ruled by eps after a step; NaN where there is no such thing."""
        group = self._groups.get(id(parameter))
        if group is None or parameter.dim() < 2:
            return NOTHING
        state = self._state.get(parameter)
        if not state or "exp_avg" not in state or "exp_avg_sq" not in state or "step" not in state:
            return NOTHING
        first, second = state["exp_avg"], state["exp_avg_sq"]
        if group.get("amsgrad"):
            second = state.get("max_exp_avg_sq", second)
        first, second = plain(first), plain(second)
        if first is None or second is None:
            return NOTHING
        step, eps = _number(state["step"]), _number(group["eps"])
        beta1, beta2 = (_number(beta) for beta in group["betas"])
        with np.errstate(all="ignore"):
            mean = _part(first) / (1 - beta1**step)
            root = (_part(second) / (1 - beta2**step)) ** 0.5
            update = mean / (root + eps)
            factor = (update * update).mean() ** 0.5
            ruled: Any = root < _FEW_EPS * eps
        if isinstance(ruled, Tensor):
            return factor, ruled.float().mean()
        return float(factor), float(np.count_nonzero(ruled)) / len(ruled)


def _part(tensor: Tensor) -> Any:
    """Some of the elements in float64 (float32 on a device): numpy on the CPU, else a tensor."""
    part = flat(tensor)[:: stride(tensor, SUBSAMPLE)]
    return array(part).astype(np.float64) if readout.on_host(part) else part.float()


def _number(value: Any) -> Any:
    return number(value) if isinstance(value, Tensor) else value
