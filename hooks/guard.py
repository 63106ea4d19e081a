"""Watches every step for the first NaN or infinity and says where it came from."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from trainvitals.hooks.gradients import GradientNorm
from trainvitals.hooks.nonfinite import (
    Call,
    explain_forward,
    explain_gradients,
    explain_update,
    is_bad,
    is_loss_name,
    not_finite,
)
from trainvitals.hooks.registry import Parameter, Registry
from trainvitals.hooks.wire.records import NonFinite

_Call: TypeAlias = tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]
_current_graph_task_id = torch._C._current_graph_task_id


class Guard:
    """Collects the calls of a forward pass and looks only at its final output.

    References are let go at the end of the outermost watched module. Which modules are outermost is known of
    the models themselves and learnt of parts that are called on their own.
    """

    def __init__(self, registry: Registry, report: Callable[[int, NonFinite], None]) -> None:
        self._registry = registry
        self._report = report
        self._calls: list[_Call] = []
        self._outermost: set[nn.Module] = set()
        self._undecided: tuple[int, NonFinite] | None = None
        self._last_bad = -2
        self._loss_is_bad: bool | None = None
        self.active = False
        """Whether forward passes are looked at: on the CPU, where looking costs no wait."""
        self.call_cost = self._calibrate()
        """Seconds that one look-up takes in a step without samples."""

    def _calibrate(self) -> float:
        call: _Call = (nn.Identity(), (), {}, None)
        begin = perf_counter()
        for _ in range(64):
            if call[0] not in self._registry.layers and torch.is_grad_enabled():
                self.collect(call)
        cost = (perf_counter() - begin) / 64
        self._calls.clear()
        return cost

    def collect(self, call: _Call) -> bool:
        """A watched module has returned; whether that was the end of a pass, to be looked at.

        A recomputation inside backward belongs to no pass.
        """
        if not self.active or _current_graph_task_id() != -1:
            return False
        self._calls.append(call)
        return call[0] in self._registry.roots or call[0] in self._outermost

    @property
    def call_count(self) -> int:
        """Calls of the pass that is under way."""
        return len(self._calls)

    def finish_pass(self, step: int, output: Any) -> None:
        """Look at a pass's final output, explain it if it is bad, and let go of the calls."""
        try:
            if not is_bad(output):
                return
            if self.known_bad(step):  # it stays bad: localising costs much and tells nothing new
                self._last_bad = step
            else:
                found = explain_forward([Call(*call) for call in self._calls], self._registry)
                if found is not None:
                    self._tell(step, found)
        finally:
            self._calls.clear()

    def release(self) -> None:
        """Let go of calls that no outermost module has closed, and learn from them which ones would."""
        if not self._calls:
            return
        names = [self._registry.layers.get(call[0], "") for call in self._calls]
        for index, (module, *_) in enumerate(self._calls):
            later = names[index + 1 :]
            if not any(name == "" or names[index].startswith(f"{name}.") for name in later):
                self._outermost.add(module)
        self._calls.clear()

    def saw_loss(self, loss: float) -> None:
        """A criterion returned this value."""
        self._loss_is_bad = bool(self._loss_is_bad) or not_finite(loss)

    def saw_log(self, values: dict[str, Any]) -> None:
        """Numbers were logged; a loss among them settles where a non-finite gradient began."""
        losses = [value for key, value in values.items() if is_loss_name(key)]
        losses = [value for value in losses if isinstance(value, float)]
        if not losses:
            return
        bad = any(not_finite(value) for value in losses)
        if self._undecided is not None:
            self.settle(loss_is_bad=bad)
        else:
            self._loss_is_bad = bool(self._loss_is_bad) or bad

    def saw_norm(self, step: int, norm: GradientNorm, holders: list[Parameter]) -> None:
        """The gradients of an optimizer step, before it; `holders` in the order of the norm's gradients."""
        if not not_finite(norm.value):
            return
        if self.known_bad(step):
            self._last_bad = step
            return
        bad = [holders[index] for index in norm.offenders()]
        if not bad:
            return
        known = self._loss_is_bad
        found = explain_gradients(bad, self._registry, bool(known))
        if known is None:
            self._last_bad = step
            self._undecided = (step, found)
        else:
            self._tell(step, found)

    def known_bad(self, step: int) -> bool:
        """Whether this step or the one before was found non-finite already."""
        return step - self._last_bad <= 1

    def saw_update(self, step: int, spoiled: list[Tensor]) -> None:
        """An optimizer step left weights non-finite."""
        if self._last_bad != step:
            self._tell(step, explain_update(spoiled, self._registry))

    def step_done(self, step: int) -> None:
        """The step is over; what is known of its loss does not hold for the next one."""
        self._loss_is_bad = None

    def settle(self, loss_is_bad: bool = False) -> None:
        """Send a finding that waited for a logged loss."""
        if self._undecided is None:
            return
        (step, found), self._undecided = self._undecided, None
        if loss_is_bad:
            found = NonFinite(
                direction="loss",
                spread=found.spread,
                spread_count=found.spread_count,
                gradients=found.gradients,
            )
        self._report(step, found)

    def _tell(self, step: int, found: NonFinite) -> None:
        """Report at the onset only: not again while each step is non-finite."""
        onset = not self.known_bad(step)
        self._last_bad = step
        if onset:
            self._report(step, found)
