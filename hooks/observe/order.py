"""The order of what a training loop calls between two steps, in the steps that are looked at."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.compiler import is_compiling
from torch.nn.utils import clip_grad
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainvitals.hooks.interception import Replaced, all_aside

MOST = 64
"""Calls that are noted of a step."""

_Function = Callable[..., Any]
_current_graph_task_id = torch._C._current_graph_task_id


class CallOrder:
    """Notes calls while it is attached. The functions it replaces pass on everything.

    What is replaced are methods of optimizers, schedulers and scalers: in the steps between they are torch's own.
    """

    def __init__(
        self,
        optimizers: Callable[[], Sequence[Optimizer]],
        before_backward: Callable[[Any], None],
    ) -> None:
        """`optimizers`: those known, in order; others have the number -1. `before_backward` gets
        the tensors that a backward pass begins with."""
        self._before_backward = before_backward
        self._optimizers = optimizers
        self.tokens: list[str] = []
        scaler = torch.amp.GradScaler
        self._replaced = [
            Replaced(torch.autograd, "backward", self._backward),
            Replaced(torch.autograd, "grad", self._noting("g")),
            Replaced(Optimizer, "zero_grad", self._zero_grad),
            Replaced(scaler, "unscale_", self._of_scaler("u")),
            Replaced(scaler, "scale", self._of_scaler("x")),
        ]
        self._replaced += [Replaced(kind, "step", self._scheduler) for kind in _schedulers()]
        if hasattr(clip_grad, "_clip_grads_with_norm_"):  # from torch 2.6 on
            self._replaced.append(Replaced(clip_grad, "_clip_grads_with_norm_", self._noting("c")))

    def attach(self) -> None:
        """Note calls from now on."""
        for replaced in self._replaced:
            replaced.put()

    def detach(self) -> None:
        """Put torch's own functions back, and forget what was noted."""
        for replaced in self._replaced:
            replaced.take_back()
        self.tokens = []

    def aside(self) -> AbstractContextManager[None]:
        """With torch's own functions for a while."""
        return all_aside(self._replaced)

    def note(self, token: str) -> None:
        """Something happened. A scheduler may be made of others, and a model be called often: told once."""
        tokens = self.tokens
        if len(tokens) < MOST and not (token in "fl" and tokens and tokens[-1] == token):
            tokens.append(token)

    def index_of(self, optimizer: Any) -> int:
        """The place of an optimizer among those known; -1 for any other."""
        places = (p for p, other in enumerate(self._optimizers()) if other is optimizer)
        return next(places, -1)

    def _noting(self, token: str) -> Callable[[_Function, Replaced], _Function]:
        def make(original: _Function, mine: Replaced) -> _Function:
            def call(*args: Any, **kwargs: Any) -> Any:
                if mine.active:
                    self.note(token)
                return original(*args, **kwargs)

            return call

        return make

    def _backward(self, original: _Function, mine: Replaced) -> _Function:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            # A checkpoint computes its part again inside the backward pass that is under way.
            if mine.active and not is_compiling() and _current_graph_task_id() == -1:
                self.note("b")
                self._before_backward(tensors)
            return original(tensors, *args, **kwargs)

        return backward

    def _zero_grad(self, original: _Function, mine: Replaced) -> _Function:
        def zero_grad(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            if mine.active:
                self.note(f"z{self.index_of(optimizer)}")
            return original(optimizer, *args, **kwargs)

        return zero_grad

    def _scheduler(self, original: _Function, mine: Replaced) -> _Function:
        def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            # The first step of a scheduler is its own, while it is being made.
            if mine.active and not getattr(scheduler, "_is_initial", False):
                self.note("l")
            return original(scheduler, *args, **kwargs)

        return step

    def _of_scaler(self, token: str) -> Callable[[_Function, Replaced], _Function]:
        def make(original: _Function, mine: Replaced) -> _Function:
            def call(scaler: Any, *args: Any, **kwargs: Any) -> Any:
                if mine.active and scaler.is_enabled():
                    self.note(token)
                return original(scaler, *args, **kwargs)

            return call

        return make


def _schedulers() -> list[type]:
    """The schedulers that have a `step` of their own."""
    found: list[type] = []
    kinds: list[type[LRScheduler]] = [LRScheduler]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if "step" in vars(kind):
            found.append(kind)
    return found
