"""Independent measurements of a training: torch's own module hooks, explicit marks, float64 throughout."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList

from trainvitals.hooks.registry import dotted

Array = npt.NDArray[Any]
_FLAT_SIDED = (nn.ReLU, nn.ReLU6, nn.Hardsigmoid)
_WRAPPERS = ("_orig_mod", "module")


def plain_model(model: nn.Module) -> nn.Module:
    """The module inside torch.compile, DDP and the like."""
    if type(model).__module__.startswith("torch."):
        for name in _WRAPPERS:
            inner = getattr(model, name, None)
            if isinstance(inner, nn.Module):
                return plain_model(inner)
    return model


def named(model: nn.Module, index: int) -> Iterator[tuple[str, nn.Module]]:
    """Modules with the names that their rows have; `index` counts the watched models."""
    prefix = f"model{index}" if index else ""
    for name, module in model.named_modules():
        yield ".".join(part for part in (prefix, name) if part), module


def row_name(name: str) -> str:
    """The name as a record has it: whole unless it is too long, as the registry shortens it."""
    return dotted(name)


def exact(tensor: Tensor) -> Array:
    """A tensor's values in float64 (complex128); of a sparse one those it holds, of a nested one all."""
    values = tensor.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    elif values.is_nested:
        values = values.values()
    wide = torch.complex128 if values.is_complex() else torch.float64
    return values.to(wide).numpy().copy()


def first_real_tensor(output: Any) -> Tensor | None:
    """The first floating tensor with elements in an output of any form."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.numel() else None
    if isinstance(output, dict):
        parts = list(output.values())
    elif isinstance(output, tuple | list):
        parts = list(output)
    else:
        parts = list(vars(output).values()) if hasattr(output, "__dataclass_fields__") else []
    return next((found for part in parts if (found := first_real_tensor(part)) is not None), None)


class Readings:
    """What one optimizer step must have recorded, as the values themselves."""

    def __init__(self) -> None:
        self.activations: dict[str, Array] = {}
        self.passed_on: dict[str, Array] = {}
        """Outputs of containers that are those of their last layer: need no row, and may have one."""
        self.units: dict[str, tuple[float, int]] = {}
        """Layers with a flat zero side: share of units never above zero so far, positions so far."""
        self.gradients: dict[str, Array] = {}
        self.held: set[str] = set()
        """Parameters whose gradients an optimizer got."""
        self.before: dict[str, Array] = {}
        self.after: dict[str, Array] = {}


class Reference:
    """Measures the models of one training. Its own hooks may disturb whatever they like."""

    def __init__(self) -> None:
        self.steps: list[Readings] = []
        self._models: list[nn.Module] = []
        self._hooked: dict[nn.Module, torch.utils.hooks.RemovableHandle] = {}
        self._counts: dict[int, int] = {}
        """By the optimizer's id: the step that its next one belongs to."""
        self._start = 0
        self._held: dict[int, set[int]] = {}
        self._last_output: Tensor | None = None
        self._alive: dict[str, npt.NDArray[np.bool_]] = {}
        self._positions: dict[str, int] = {}
        self._marked = False

    def add(self, model: nn.Module) -> None:
        """Measure this model from now on; a second time changes nothing."""
        inner = plain_model(model)
        if not any(inner is known for known in self._models):
            self._models.append(inner)
        self._start = self._completed()
        self._hook()

    def _completed(self) -> int:
        return max(self._counts.values(), default=0)

    def _own(self, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
        """Parameters whose step this is: those it holds and, for the first one, those that none holds."""
        self._counts.setdefault(id(optimizer), self._start)
        self._held[id(optimizer)] = {id(p) for g in optimizer.param_groups for p in g["params"]}
        others = {p for key, held in self._held.items() if key != id(optimizer) for p in held}
        first = id(optimizer) == next(iter(self._counts))
        return {
            name: parameter
            for name, parameter in self._parameters().items()
            if id(parameter) in self._held[id(optimizer)] or (first and id(parameter) not in others)
        }

    def _hook(self) -> None:
        for index, model in enumerate(self._models):
            inside: set[nn.Module] = set()
            for name, module in named(model, index):
                if isinstance(module, ParametrizationList):
                    inside |= set(module.modules())
                if module not in self._hooked and module not in inside:
                    self._hooked[module] = module.register_forward_hook(
                        self._hook_of(row_name(name))
                    )

    def _hook_of(self, name: str) -> Any:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            tensor = first_real_tensor(output)
            if not torch.is_grad_enabled() or tensor is None:
                return
            readings = self._readings(self._completed())
            passes_on = tensor is self._last_output and next(module.children(), None) is not None
            self._last_output = tensor
            if name in readings.activations or name in readings.passed_on:
                return
            if passes_on:
                readings.passed_on[name] = exact(tensor)
                return
            values = readings.activations[name] = exact(tensor)
            if isinstance(module, _FLAT_SIDED):
                unit = 1 if values.ndim == 4 else values.ndim - 1
                active = (values > 0).any(tuple(d for d in range(values.ndim) if d != unit))
                self._alive[name] = self._alive.get(name, np.zeros_like(active)) | active
                seen = values.size // values.shape[unit]
                self._positions[name] = self._positions.get(name, 0) + seen
                readings.units[name] = (1 - self._alive[name].mean(), self._positions[name])

        return look

    def _readings(self, step: int) -> Readings:
        while len(self.steps) <= step:
            self.steps.append(Readings())
        return self.steps[step]

    def _parameters(self) -> dict[str, nn.Parameter]:
        found: dict[str, nn.Parameter] = {}
        seen: set[int] = set()
        for index, model in enumerate(self._models):
            for layer, module in named(model, index):
                for key, parameter in module.named_parameters(recurse=False):
                    if id(parameter) not in seen and not isinstance(
                        parameter, UninitializedParameter
                    ):
                        seen.add(id(parameter))
                        found[row_name(f"{layer}.{key}" if layer else key)] = parameter
        return found

    def gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """The gradients of the coming step of `optimizer` are as they should be seen: unscaled, not yet clipped."""
        own = self._own(optimizer)
        readings = self._readings(self._counts[id(optimizer)])
        for name, parameter in own.items():
            if parameter.grad is not None:
                readings.gradients[name] = exact(parameter.grad)
                if id(parameter) in self._held[id(optimizer)]:
                    readings.held.add(name)
        self._marked = True

    def before(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """Right before the step."""
        if not self._marked and not closure:
            self.gradients(optimizer)
        own = self._own(optimizer)
        readings = self._readings(self._counts[id(optimizer)])
        readings.before |= {name: exact(parameter) for name, parameter in own.items()}

    def after(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:
        """Right after the step, which has taken place."""
        if closure:
            self.gradients(optimizer)
        readings = self._readings(self._counts[id(optimizer)])
        own = self._own(optimizer)
        readings.after |= {name: exact(parameter) for name, parameter in own.items()}
        self._counts[id(optimizer)] += 1
        self._marked = False
        self._hook()

    def restart_units(self) -> None:
        """The count of active units begins again."""
        self._alive, self._positions = {}, {}

    def forget_marks(self) -> None:
        """The step that was prepared does not take place."""
        self._marked = False

    def close(self) -> list[Readings]:
        """Take the hooks off; the readings of all completed steps."""
        for handle in self._hooked.values():
            handle.remove()
        return self.steps[: self._completed()]
