"""Calls that are noted without what nobody but us would keep alive, or would look at.

A linear layer's output goes into an activation, which keeps its own result for backward: the value between them is
free at once, and the next layer works in the same memory, which the caches hold. To keep it makes a net of
100 small layers 2 % slower. Layers in a row inside an `nn.Sequential` are not noted at all, only the row: noting
200 calls takes another 1 %. All of it is made again from what was noted, should it ever be asked for.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from types import FunctionType
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from trainvitals.hooks.call import Call


class Slim(Enum):
    """What is left out of a call that is noted with less than all of it."""

    OUTPUT = 1
    INPUT = 2


Row: TypeAlias = tuple[nn.Module, ...]
"""The layers of an `nn.Sequential` that is noted as one call, without those of its layers."""
SlimModules: TypeAlias = Mapping[nn.Module, Slim | Row]
"""Modules whose calls are noted with less than all."""

LEFT_OUT: Any = object()
LAYERS_LEFT_OUT: dict[str, Any] = {}
"""Keyword arguments of a noted row: it has none."""

_REPEATABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose backward keeps their input, and whose output follows from it."""
_FAITHFUL = (nn.Tanh, nn.Sigmoid, nn.ReLU)
"""Activations whose backward keeps their output, which is finite where their input is."""
_IN_A_ROW = (
    *_REPEATABLE,
    *_FAITHFUL,
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.ELU,
    nn.Flatten,
    nn.GELU,
    nn.Identity,
    nn.LayerNorm,
    nn.LeakyReLU,
    nn.MaxPool2d,
    nn.SiLU,
)
"""Layers without state or chance: what they did can be done again."""

_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def hooks_so_far() -> int:
    """How many hooks were ever registered, on any module or tensor: none is new while this stays the same."""
    return RemovableHandle.next_id


def slim_modules(modules: Iterable[nn.Module], roots: set[nn.Module]) -> SlimModules:
    """How calls of the modules may be noted, where not in full. Those of `roots` show the batch and the outcome.

    It holds until somebody registers a hook: what that does to a value can't be done again.
    """
    slim: dict[nn.Module, Slim | Row] = {}
    if any(vars(nn.modules.module)[name] for name in _GLOBAL_HOOKS):
        return slim
    for module in modules:
        if not _is_untouched(module):
            continue
        if type(module) is nn.Sequential:
            row = tuple(layer for layer in module._modules.values() if _fits_in_a_row(layer))
            if row and len(row) == len(module):
                slim[module] = row
        elif module in roots:
            continue
        elif (
            type(module) in _REPEATABLE and module.weight.requires_grad
        ):  # otherwise nobody keeps its input
            slim[module] = Slim.OUTPUT
        elif type(module) in _FAITHFUL and not _in_place(module):
            slim[module] = Slim.INPUT
    return slim


def in_rows(slim: SlimModules) -> set[nn.Module]:
    """The layers whose calls are not noted, as those of the row are."""
    return {layer for row in slim.values() if isinstance(row, tuple) for layer in row}


def _fits_in_a_row(layer: nn.Module | None) -> TypeGuard[nn.Module]:
    return (
        layer is not None
        and type(layer) in _IN_A_ROW
        and not _in_place(layer)
        and _is_untouched(layer)
    )


def _in_place(module: nn.Module) -> bool:
    return bool(getattr(module, "inplace", False))


def _is_untouched(module: nn.Module) -> bool:
    """Whether a call of this layer of torch does what torch wrote, and no more."""
    return _comes_with_torch(type(module)) and not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or module._compiled_call_impl is not None
    )


def _comes_with_torch(layer: type[nn.Module]) -> bool:
    """Whether nobody has put code of his own into the class, for all modules of it."""
    code = (layer.forward, layer._call_impl)
    return all(_is_torchs_own(function) for function in code) and not any(
        "__call__" in vars(base) for base in layer.__mro__[: layer.__mro__.index(nn.Module)]
    )


def _is_torchs_own(function: Any) -> bool:
    own = isinstance(function, FunctionType) and function.__module__.startswith("torch.nn.modules.")
    return own and not hasattr(function, "__wrapped__")


def whole(calls: Iterable[Call]) -> list[Call]:
    """Noted calls with what was left out, or its like: a value that is finite where that was."""
    filled: list[Call] = []
    for call in calls:
        module, args, kwargs, output = call
        if kwargs is LAYERS_LEFT_OUT:
            # Others of its layers were called by themselves before the row.
            inside = {layer for layer in module.children() if not _fits_in_a_row(layer)}
            noted: list[Call] = []
            while filled and filled[-1][0] in inside:
                noted.append(filled.pop())
            filled += [*_layers(call, noted[::-1]), call]
        elif output is LEFT_OUT:
            with torch.no_grad():
                filled.append((module, args, kwargs, module.forward(*args, **kwargs)))
        elif args is LEFT_OUT:
            filled.append((module, (output.detach().clone(),), {}, output))
        else:
            filled.append(call)
    return filled


def _layers(row: Call, noted: list[Call]) -> list[Call]:
    """The calls inside a row: those that were noted after all, as they were not as usual, and the others done again.

    Only the noted ones where this does not lead to what came out of the row then.
    """
    module, (value,), _, output = row
    kept = {call[0]: call for call in noted}
    layers: Any = module._modules.values()  # one that is there twice is called twice
    calls: list[Call] = []
    with torch.no_grad():
        for layer in layers:
            calls.append(kept.get(layer) or (layer, (value,), {}, layer.forward(value)))
            value = calls[-1][3]
        same = value.shape == output.shape and torch.equal(value.isfinite(), output.isfinite())
    return calls if same else noted
