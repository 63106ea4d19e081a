"""Notices at once that a watched model has got other modules or parameters, or an optimizer more of them."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from trainvitals.hooks.interception import Replaced
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.uncompiled import uncompiled


class Changes:
    """Asks nothing at each step: torch tells when something is assigned to a module."""

    def __init__(self, registry: Registry, tell: Callable[[], None]) -> None:
        """`tell` is called at each change; it must not raise."""
        self._registry = registry
        self._tell = tell
        self._handles: list[RemovableHandle] = []
        self._groups = Replaced(Optimizer, "add_param_group", self._adding)

    def attach(self) -> None:
        """Notice changes from now on."""

        @uncompiled
        def assigned(module: nn.Module, name: str, value: Any) -> None:
            if module in self._registry.layers:
                self._tell()

        self._handles = [
            register_module_module_registration_hook(assigned),
            register_module_parameter_registration_hook(assigned),
        ]
        self._groups.put()

    def detach(self) -> None:
        """Leave torch as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._groups.take_back()

    def _adding(self, original: Callable[..., Any], mine: Replaced) -> Callable[..., Any]:
        def add_param_group(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            result = original(optimizer, *args, **kwargs)
            if mine.active:
                self._tell()
            return result

        return add_param_group
