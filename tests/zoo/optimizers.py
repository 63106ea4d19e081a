"""Optimizers in their variants, wrapped, scheduled and home-made."""

from typing import Any

import pytest
import torch
from torch import Tensor

import trainvitals.hooks as tv
from tests.zoo.architectures import small_net
from tests.zoo.checks import FACETS
from tests.zoo.harness import Condition
from tests.zoo.session import STEPS, Session


def _trained(zoo: Session, kind: Any, **options: Any) -> None:
    model = small_net()
    optimizer = kind(model.parameters(), lr=1e-2, **options)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def foreach_optimizer(zoo: Session) -> None:
    _trained(zoo, torch.optim.AdamW, foreach=True)


def fused_optimizer(zoo: Session) -> None:
    _trained(zoo, torch.optim.AdamW, fused=True)


def differentiable_optimizer(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, differentiable=True)
    zoo.watch(model, optimizer)

    def detached_step() -> None:
        model.requires_grad_(False)  # a leaf that needs a gradient cannot be moved with a graph
        optimizer.step()
        model.requires_grad_(True)

    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(torch.randn(12, 8)).square().mean()
        loss.backward()
        zoo.step(optimizer, by=detached_step)
        zoo.loss(loss)


def scheduled_rate(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, after=lambda _: schedule.step())


def fused_scaler(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    zoo.watch(model, optimizer)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(torch.randn(12, 8)).square().mean()
        scaler.scale(loss).backward()
        if zoo.simple:
            scaler.unscale_(optimizer)
        zoo.step(optimizer, by=lambda: scaler.step(optimizer))
        scaler.update()
        zoo.loss(loss)


class Sharded(torch.optim.Optimizer):
    """An optimizer round another one that does the work, in the manner of ZeroRedundancyOptimizer."""

    def __init__(self, parameters: Any, inner: type[torch.optim.Optimizer], **options: Any) -> None:
        super().__init__(parameters, options)
        self.optim = inner(self.param_groups, **options)

    def step(self, closure: Any = None) -> None:
        self.optim.step()


def wrapped_optimizer(zoo: Session) -> None:
    model = small_net()
    optimizer = Sharded(model.parameters(), torch.optim.Adam, lr=1e-2)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


class Held:
    """An optimizer inside an object that is none, as Accelerate has it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()


def held_optimizer(zoo: Session) -> None:
    model = small_net()
    optimizer = Held(torch.optim.Adam(model.parameters(), lr=1e-2))
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


class Signs(torch.optim.Optimizer):
    """A home-made optimizer, by the book."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * parameter.grad.sign()


class Hookless(Signs):
    """A home-made optimizer that skips torch's initialisation: no hook ever sees it step."""

    def __init__(self, parameters: Any, lr: float) -> None:
        self.defaults: dict[str, Any] = {"lr": lr}
        self.state: dict[Tensor, Any] = {}
        self.param_groups = [{"params": list(parameters), "lr": lr}]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter -= self.param_groups[0]["lr"] * parameter.grad.sign()

    def state_dict(self) -> dict[str, Any]:
        return {}


def custom_optimizer(zoo: Session) -> None:
    _trained(zoo, Signs)


def hookless_optimizer(zoo: Session) -> None:
    model = small_net()
    optimizer = Hookless(model.parameters(), lr=1e-2)
    zoo.begin()
    if zoo.watched:
        with pytest.raises(TypeError, match="its steps cannot be seen"):
            tv.watch(model, optimizer)
    zoo.watch(model)
    zoo.classify(model, optimizer)


_UNSEEN = dict.fromkeys(
    FACETS, "its steps call no hook of torch; derive it from Optimizer and call super().__init__()"
)
CONDITIONS = [
    Condition("optimizer with foreach", foreach_optimizer),
    Condition("optimizer with fused", fused_optimizer),
    Condition("optimizer with fused, scaled gradients", fused_scaler),
    Condition("optimizer with differentiable", differentiable_optimizer),
    Condition("learning-rate schedule", scheduled_rate),
    Condition("optimizer that wraps another", wrapped_optimizer),
    Condition("optimizer inside another object", held_optimizer),
    Condition("home-made optimizer", custom_optimizer),
    Condition("home-made optimizer without torch's hooks", hookless_optimizer, _UNSEEN),
]
