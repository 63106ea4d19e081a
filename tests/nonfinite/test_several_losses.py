"""Several losses with optimizers of their own: a fault is told at the round of the training's loop in which it arose,
at its place and once, whichever of them steps first and whatever the other losses say."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nonfinite.bench import BATCH, FEATURES, STEPS, WIDTH, Fault, spoil, spoil_gradient
from nonfinite.models import named
from torch import nn
from torch.nn.functional import mse_loss, softplus

import trainvitals.hooks as tv

AFTER = 8
PREFIX = ("", "model1.")
"""Of the names of the layers of the first and the second model."""
Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}
optimizers = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
intervals = pytest.mark.parametrize("interval", [None, 10, 1000])
steps = pytest.mark.parametrize("step", STEPS)


def net(fault: Fault, out: int) -> nn.Module:
    return named(
        inputs=nn.Linear(FEATURES, WIDTH),
        lower=nn.Linear(WIDTH, WIDTH),
        middle=fault,
        head=nn.Linear(WIDTH, out),
    )


def noise() -> torch.Tensor:
    return torch.randn(BATCH, FEATURES)


class Gan:
    """A generator ("g") and a discriminator ("d") that take turns."""

    def __init__(self, first: str, make: Make, detached: bool, rounds: int) -> None:
        """`rounds`: of the discriminator for each one of the generator."""
        torch.manual_seed(6)
        self.faults = {"g": Fault(spoil), "d": Fault(spoil)}
        self.nets = {"g": net(self.faults["g"], FEATURES), "d": net(self.faults["d"], 1)}
        self.optimizers = {name: make(net.parameters()) for name, net in self.nets.items()}
        self.order = [first, *({"g", "d"} - {first})]
        self.detached, self.rounds = detached, rounds

    def watch(self, **settings: Any) -> None:
        models, optimizers = ([of[n] for n in self.order] for of in (self.nets, self.optimizers))
        tv.watch(models, optimizers, strict=True, **settings)

    def turn(self, who: str, faulty: str | None) -> None:
        generated = self.nets["g"](noise())
        if who == "d" and self.detached:
            generated = generated.detach()
        self.faults["d"].on = faulty == "d"
        judged = self.nets["d"](generated)
        if who == "d":
            loss = (softplus(judged) + softplus(-self.nets["d"](noise()))).mean()
        else:
            loss = softplus(-judged).mean()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        self.optimizers[who].step()

    def round(self, index: int, whose: str | None, fault: str) -> None:
        """`whose` turn has the fault, in the net `fault`."""
        for who in self.order:
            if who == "d" or index % self.rounds == self.rounds - 1:
                self.faults["g"].on = who == whose and fault == "g"
                self.turn(who, fault if who == whose else None)


@steps
@intervals
@optimizers
@pytest.mark.parametrize("fault", [("g", "g"), ("d", "d"), ("g", "d")], ids="-in-".join)
@pytest.mark.parametrize("first", ["g", "d"])
def test_a_gan(
    found: Any, first: str, fault: tuple[str, str], make: Make, interval: int | None, step: int
) -> None:
    training = Gan(first, make, detached=True, rounds=1)
    training.watch(interval=interval)
    whose, where = fault
    for index in range(step + AFTER):
        training.round(index, whose if index == step else None, where)
    (event,) = found()
    assert (event[0], event[1]["direction"]) == (step, "forward")
    assert event[1]["layer"] == PREFIX[training.order.index(where)] + "middle"


@intervals
@optimizers
@pytest.mark.parametrize("whose", ["g", "d"])
@pytest.mark.parametrize("step", [2, 8, 41])
def test_a_generator_whose_turn_comes_in_each_third_round(
    found: Any, whose: str, make: Make, interval: int | None, step: int
) -> None:
    training = Gan("d", make, detached=True, rounds=3)
    training.watch(interval=interval)
    for index in range(step + AFTER):
        training.round(index, whose if index == step else None, whose)
    (event,) = found()
    assert (event[0], event[1]["direction"]) == (step, "forward")


@intervals
@pytest.mark.parametrize("step", [7, 41])
@pytest.mark.parametrize("first", ["g", "d"])
def test_a_discriminator_that_sends_gradients_through_the_generator(
    found: Any, first: str, interval: int | None, step: int
) -> None:
    training = Gan(first, OPTIMIZERS["adam"], detached=False, rounds=1)
    training.watch(interval=interval)
    for index in range(step + AFTER):
        training.round(index, "d" if index == step else None, "d")
    (event,) = found()
    assert (event[0], event[1]["direction"]) == (step, "forward")


def rate(optimizer: torch.optim.Optimizer, on: bool) -> None:
    optimizer.param_groups[0]["lr"] = math.nan if on else 0.01


@steps
@intervals
@optimizers
@pytest.mark.parametrize("direction", ["forward", "backward", "update"])
@pytest.mark.parametrize("sick", [0, 1], ids=["the first", "the second"])
def test_two_models_that_have_nothing_in_common(
    found: Any, sick: int, direction: str, make: Make, interval: int | None, step: int
) -> None:
    torch.manual_seed(6)
    faults = [Fault(spoil if direction == "forward" else spoil_gradient) for _ in range(2)]
    nets = [net(fault, 1) for fault in faults]
    optimizers = [make(net.parameters()) for net in nets]
    tv.watch(nets, optimizers, interval=interval, strict=True)
    for index in range(step + AFTER):
        for at, (model, optimizer) in enumerate(zip(nets, optimizers, strict=True)):
            on = index == step and at == sick
            faults[at].on = on and direction != "update"
            rate(optimizer, on and direction == "update")
            optimizer.zero_grad()
            mse_loss(model(noise())[:, 0], torch.zeros(BATCH)).backward()
            optimizer.step()
    (event,) = found()
    assert (event[0], event[1]["direction"]) == (step, direction)
    layer = {"forward": "middle", "backward": "lower", "update": "inputs"}[direction]
    assert event[1]["layer"] == PREFIX[sick] + layer


@intervals
@optimizers
@pytest.mark.parametrize("step", [8, 40])
def test_the_same_weights_are_told_of_once_though_losses_between_are_fine(
    found: Any, make: Make, interval: int | None, step: int
) -> None:
    """Two tasks in turn, with a head for each."""
    torch.manual_seed(6)
    fault = Fault(spoil_gradient)
    model = nn.ModuleDict({"a": nn.Linear(FEATURES, 4), "b": net(fault, 4)})
    optimizer = make(model.parameters())
    tv.watch(model, optimizer, interval=interval, strict=True)
    for index in range(step + 30):
        fault.on = index == step
        optimizer.zero_grad()
        model["ba"[index % 2]](noise()).square().mean().backward()
        optimizer.step()
    (event,) = found()
    assert event[1]["layer"].startswith("b.")
