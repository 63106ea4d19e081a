"""Follows what changes in mid-training: layers and parameters that are added, replaced or unfrozen."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch.optim import Optimizer

from trainvitals.hooks.interception import Replaced
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.quiet import Quiet
from trainvitals.hooks.registry import Registry, Rows


class Changes:
    """Asks nothing at each step.

    That an optimizer is given parameters is noticed at once, as `Optimizer.add_param_group` is replaced while this is
    attached; all else when `follow` is called.
    """

    def __init__(
        self,
        registry: Registry,
        optimizers: Optimizers,
        quiet: Quiet,
        rows: Rows,
        forget: Callable[[], None],
    ) -> None:
        """`rows`: those of the parameters; `forget` lets go of what others know of the models, where that changed."""
        self._registry = registry
        self._optimizers = optimizers
        self._quiet = quiet
        self._rows = rows
        self._forget = forget
        self._replaced = Replaced(Optimizer, "add_param_group", self._adding)
        self._version = 0
        """The version of the registry that all is made for."""
        self._step = -1
        """The last one with a look before which changes were followed."""
        self.pending = False
        """Whether an optimizer was given parameters since they were followed."""

    def attach(self) -> None:
        """Notice changes from now on."""
        self._replaced.put()

    def detach(self) -> None:
        """Put torch's own function back."""
        self._replaced.take_back()

    def aside(self) -> AbstractContextManager[None]:
        """With torch's own function for a while."""
        return self._replaced.aside()

    def follow(self) -> None:
        """Follow all changes, and place the rows of the parameters."""
        self.pending = False
        self._registry.refresh()
        if self._registry.version != self._version or self._optimizers.have_changed():
            self._version = self._registry.version
            self._optimizers.forget_members()
            self._forget()
        self._optimizers.renew()
        self._registry.place_parameters(self._rows, self._optimizers.held())

    def follow_before(self, step: int, optimizer: Optimizer, planned: bool) -> None:
        """Follow changes before an optimizer moves anything in a sampled step: once, and if that is planned or due."""
        due = self.pending or planned or self._optimizers.has_changed(optimizer)
        if due and self._step != step:
            self._step = step
            self.follow()

    def _adding(self, original: Callable[..., Any], mine: Replaced) -> Callable[..., Any]:
        def add_param_group(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            result = original(optimizer, *args, **kwargs)
            if mine.active and any(known is optimizer for known in self._optimizers.known):
                self.pending, self._quiet.on = True, False
            return result

        return add_param_group
