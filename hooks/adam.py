"""The update that Adam makes, in units of the learning rate, from what the optimizer keeps."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from trainvitals.hooks.memory import SAMPLE, Memory
from trainvitals.hooks.plain import flat, plain, stride
from trainvitals.hooks.readout import Number, number

_FEW_EPS = 10.0
"""Multiples of eps below which the root of the second moment does not rule the update any more."""
NOTHING: tuple[Number, Number] = (math.nan, math.nan)


class AdamUpdate:
    """Reads what Adam and AdamW (and optimizers derived from them) keep of `SAMPLE` elements of each parameter.

    The factor's relative standard error is at most sqrt((k - 1) / (4 n)) for n elements whose update has kurtosis k:
    2.2 % for k = 3. A share p has sqrt(p (1 - p) / n), at most 1.6 points.
    """

    def __init__(self, optimizer: Optimizer | None, memory: Memory) -> None:
        self._memory = memory
        self._optimizer = optimizer if isinstance(optimizer, Adam) else None  # AdamW is one
        self._groups: dict[int, dict[str, Any]] = {}
        """By the id of a parameter."""
        self._known: list[Any] = []
        """The groups and how many parameters each had when they were looked up."""

    def _follow(self, optimizer: Optimizer) -> None:
        """Look the groups up again where there are others, as after `load_state_dict` and `add_param_group`."""
        groups = optimizer.param_groups
        known = [(id(group), len(group["params"])) for group in groups]
        if known != self._known:
            self._known = known
            self._groups = {id(p): group for group in groups for p in group["params"]}

    def of(self, parameters: Sequence[Tensor]) -> list[tuple[Number, Number]]:
        """Update factor and share of elements ruled by eps after a step; NaN where there is no such thing."""
        found = [NOTHING] * len(parameters)
        if self._optimizer is None or not parameters:
            return found
        self._follow(self._optimizer)
        states = self._optimizer.state
        together: dict[tuple[float, ...], list[tuple[int, Any, Any]]] = {}
        for index, parameter in enumerate(parameters):
            if parameter.dim() < 2 or parameter.grad is None:
                continue
            group, state = self._groups.get(id(parameter)), states.get(parameter)
            if group is None or not state:
                continue
            if "exp_avg" not in state or "exp_avg_sq" not in state or "step" not in state:
                continue
            second = state["exp_avg_sq"]
            if group.get("amsgrad"):
                second = state.get("max_exp_avg_sq", second)
            moments = self._part(state["exp_avg"]), self._part(second)
            if moments[0] is None or moments[1] is None:
                continue
            settings = (state["step"], group["eps"], *group["betas"])
            if isinstance(moments[0], Tensor):
                found[index] = _late(*moments, *map(_number, settings))
            else:
                step, *rest = settings
                key = (float(_number(step)), *map(float, rest))
                together.setdefault(key, []).append((index, *moments))
        for key, members in together.items():
            for index, result in zip([m[0] for m in members], _here(members, *key), strict=True):
                found[index] = result
        return found

    def _part(self, tensor: Tensor) -> Any:
        """Some of the elements: numpy on the CPU, else a tensor."""
        sample = self._memory.sample(tensor)
        if sample is not None:
            return sample
        dense = plain(tensor)
        return None if dense is None else flat(dense)[:: stride(dense, SAMPLE)].float()


def _here(
    members: list[tuple[int, Any, Any]], step: float, eps: float, beta1: float, beta2: float
) -> list[tuple[float, float]]:
    """For arrays that share all settings, in a few passes over all of them."""
    sizes = [first.size for _, first, _ in members]
    begins = [0, *accumulate(sizes)][:-1]
    parts = [first for _, first, _ in members] + [second for *_, second in members]
    update, root = np.concatenate(parts, axis=None, dtype=np.float64).reshape(2, -1)
    # Both moments are that much smaller than the means that they stand for.
    first, second = 1 - beta1**step, math.sqrt(1 - beta2**step)
    limit, ruled = _FEW_EPS * eps * second, [0.0] * len(sizes)
    with np.errstate(all="ignore"):
        np.sqrt(root, out=root)
        if not np.minimum.reduce(root) >= limit:
            ruled = np.add.reduceat(root < limit, begins, dtype=np.float64).tolist()
        root += eps * second
        update /= root
        update *= update
        squares = np.add.reduceat(update, begins).tolist()
    scale = second / first if first else math.nan
    return [
        (math.sqrt(square / size) * scale, below / size)
        for square, size, below in zip(squares, sizes, ruled, strict=True)
    ]


def _late(
    first: Tensor, second: Tensor, step: Any, eps: Any, beta1: Any, beta2: Any
) -> tuple[Number, Number]:
    """The same as tensors of one element on the device."""
    root = (second / (1 - beta2**step)) ** 0.5
    update = first / (1 - beta1**step) / (root + eps)
    return (update * update).mean() ** 0.5, (root < _FEW_EPS * eps).to(torch.float32).mean()


def _number(value: Any) -> Any:
    return number(value) if isinstance(value, Tensor) else value
