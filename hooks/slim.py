"""Calls that are noted without the tensors that nobody but us would keep alive.

A linear layer's output goes into an activation, which keeps its own result for backward: the value between them is
free at once, and the next layer works in the same memory, which the caches hold. To keep it makes a net of
100 small layers 2 % slower. It is made again from the layer's input, should it ever be asked for.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainvitals.hooks.call import Call

LEFT_OUT: Any = object()
_REPEATABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose backward keeps their input, and whose output follows from it."""
_FAITHFUL = (nn.Tanh, nn.Sigmoid, nn.ReLU)
"""Activations whose backward keeps their output, which is finite where their input is."""


def slim_modules(modules: Iterable[nn.Module]) -> dict[nn.Module, bool]:
    """Those of the modules whose calls may be noted without the output (True) or without the input (False)."""
    slim: dict[nn.Module, bool] = {}
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        return slim
    for module in modules:
        if (
            type(module) in _REPEATABLE and module.weight.requires_grad
        ):  # otherwise nobody keeps its input
            slim[module] = True
        elif type(module) in _FAITHFUL and not getattr(module, "inplace", False):
            slim[module] = False
    return slim


def whole(call: Call) -> Call:
    """A noted call with what was left out, or its like: a value that is finite where that was."""
    module, args, kwargs, output = call
    if output is LEFT_OUT:
        with torch.no_grad():
            return module, args, kwargs, module.forward(*args, **kwargs)
    if args is LEFT_OUT:
        return module, (output.detach().clone(),), {}, output
    return call
