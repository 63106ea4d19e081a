"""A model or its optimizer changes in mid-training, where no step is looked at, and something breaks soon after."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from nonfinite.bench import (
    CLASSES,
    FEATURES,
    WIDTH,
    Fault,
    arm,
    cross_entropy,
    features,
    sgd,
    spoil,
    spoil_gradient,
)
from nonfinite.models import named
from torch import nn
from torch.optim import Optimizer

import trainvitals.hooks as tv

Make = Callable[[Iterable[nn.Parameter]], Optimizer]
CHANGED, BROKEN = 38, 41
"""Steps that default settings do not sample. They look at some of them, or at none, as the costs of the first steps
will have it."""


def adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


@pytest.fixture(autouse=True, params=[36, 38, 40])
def _changed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CHANGED", request.param)


both = pytest.mark.parametrize("make", [sgd, adam])


def net() -> Any:
    torch.manual_seed(2)
    return named(inputs=nn.Linear(FEATURES, WIDTH), act=nn.ReLU(), head=nn.Linear(WIDTH, CLASSES))


def train(model: Any, optimizer: Optimizer, change: Callable[[Any, Optimizer], Any]) -> None:
    """`change` may give another optimizer, which is not told to `watch`."""
    tv.watch(model, optimizer, strict=True)
    for step in range(BROKEN + 3):
        if step == CHANGED:
            optimizer = change(model, optimizer) or optimizer
        arm(model, step == BROKEN)
        optimizer.zero_grad()
        cross_entropy(model(features(False)), False).backward()
        optimizer.step()


def told(found: Any) -> list[tuple[int, str, str]]:
    return [(step, data["direction"], data.get("layer", "")) for step, data in found()]


@both
def test_the_backward_pass_of_added_layers(found: Any, make: Make) -> None:
    def change(model: Any, optimizer: Optimizer) -> None:
        layers = [nn.Linear(CLASSES, CLASSES), Fault(spoil_gradient), nn.Linear(CLASSES, CLASSES)]
        model.add_module("extra", nn.Sequential(*layers))
        optimizer.add_param_group({"params": model.extra.parameters()})

    model = net()
    train(model, make(model.parameters()), change)
    assert told(found) == [(BROKEN, "backward", "extra.0")]


@both
def test_the_forward_pass_of_an_added_layer(found: Any, make: Make) -> None:
    model = net()
    train(
        model,
        make(model.parameters()),
        lambda model, optimizer: model.add_module("extra", Fault(spoil)),
    )
    assert told(found) == [(BROKEN, "forward", "extra")]


@both
def test_a_layer_in_the_place_of_another(found: Any, make: Make) -> None:
    def change(model: Any, optimizer: Optimizer) -> None:
        model.head = nn.Sequential(nn.Linear(WIDTH, CLASSES), Fault(spoil_gradient))
        optimizer.state.clear()
        optimizer.param_groups.clear()
        optimizer.add_param_group({"params": model.parameters()})

    model = net()
    train(model, make(model.parameters()), change)
    assert told(found) == [(BROKEN, "backward", "head.0")]


@both
def test_parameters_that_are_unfrozen(found: Any, make: Make) -> None:
    def change(model: Any, optimizer: Optimizer) -> None:
        model.inputs.requires_grad_(True)
        optimizer.add_param_group({"params": model.inputs.parameters()})

    model = net()
    model.act = Fault(spoil_gradient)
    model.inputs.requires_grad_(False)
    train(model, make(model.head.parameters()), change)
    assert told(found) == [(BROKEN, "backward", "inputs")]


@both
def test_an_optimizer_that_is_made_anew(found: Any, make: Make) -> None:
    model = net()
    model.act = Fault(spoil_gradient)
    train(model, make(model.parameters()), lambda model, optimizer: make(list(model.parameters())))
    assert told(found) == [(BROKEN, "backward", "inputs")]


@both
def test_a_second_loss_whose_layers_were_added(found: Any, make: Make) -> None:
    model = net()
    optimizer = make(model.parameters())
    tv.watch(model, optimizer, strict=True)
    for step in range(BROKEN + 3):
        if step == CHANGED:
            layers = [nn.Linear(WIDTH, WIDTH), Fault(spoil_gradient), nn.Linear(WIDTH, CLASSES)]
            model.add_module("second", nn.Sequential(*layers))
            optimizer.add_param_group({"params": model.second.parameters()})
        arm(model, step == BROKEN)
        optimizer.zero_grad()
        cross_entropy(model.head(model.act(model.inputs(features(False)))), False).backward()
        if step >= CHANGED:
            cross_entropy(model.second(model.act(model.inputs(features(False)))), False).backward()
        optimizer.step()
    assert told(found) == [(BROKEN, "backward", "second.0")]
