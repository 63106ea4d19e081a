"""Trainings whose losses, layers or steps are not where those of others are."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from nonfinite.bench import (
    BATCH,
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
from nonfinite.models import layer, mlp, named
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import trainvitals.hooks as tv

at_any_step = pytest.mark.parametrize("broken", [7, 41])
AFTER = 3


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def told(found: Any) -> list[tuple[int, str, str]]:
    return [(step, data["direction"], data.get("layer", "")) for step, data in found()]


def train(model: nn.Module, broken: int, step: Callable[[bool], None]) -> None:
    """`step` is told whether it is the faulty one."""
    for index in range(broken + AFTER + 1):
        arm(model, index == broken)
        step(index == broken)


@at_any_step
def test_gradients_by_transforms_of_functions(found: Any, broken: int) -> None:
    model = named(inputs=nn.Linear(FEATURES, WIDTH), act=nn.ReLU(), head=nn.Linear(WIDTH, CLASSES))
    optimizer = sgd(model.parameters())
    own = dict(model.named_parameters())
    tv.watch(model, optimizer, strict=True)

    def loss(weights: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        output = torch.func.functional_call(model, weights, (sample[None],))
        return nn.functional.cross_entropy(output, label[None])

    of_each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def step(on: bool) -> None:
        batch = features(False)
        batch[0] = math.nan if on else 0.0
        for name, gradients in of_each(own, batch, torch.arange(BATCH) % CLASSES).items():
            own[name].grad = gradients.mean(0).detach()
        optimizer.step()

    train(model, broken, step)
    ((at, direction, _),) = told(found)
    assert (at, direction) == (broken, "backward")


@at_any_step
@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("act", [spoil, spoil_gradient])
def test_gradients_by_autograd_grad(found: Any, broken: int, make: Any, act: Any) -> None:
    model = mlp(Fault(act))
    optimizer = make(model.parameters())
    tv.watch(model, optimizer, strict=True)

    def step(on: bool) -> None:
        loss = cross_entropy(model(features(False)), False)
        weights = list(model.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        optimizer.step()

    train(model, broken, step)
    place = ("forward", "middle") if act is spoil else ("backward", "lower")
    assert told(found) == [(broken, *place)]


def test_steps_without_a_backward_pass_leave_nothing_behind() -> None:
    model = mlp(Fault(spoil))
    optimizer = sgd(model.parameters())
    run: Any = tv.init()
    tv.watch(model, optimizer, interval=1000)
    for _ in range(50):
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert len(run._watch.quiet.kept) == 1


@at_any_step
def test_optimizers_that_step_inside_of_the_backward_pass(found: Any, broken: int) -> None:
    model = mlp(Fault(spoil_gradient))
    optimizers = {weight: sgd([weight]) for weight in model.parameters()}

    def apply(weight: Tensor) -> None:
        optimizers[weight].step()  # type: ignore[index]
        weight.grad = None

    for weight in model.parameters():
        weight.register_post_accumulate_grad_hook(apply)
    tv.watch(model, list(optimizers.values()), strict=True)
    train(model, broken, lambda on: cross_entropy(model(features(False)), False).backward())
    assert told(found) == [(broken, "backward", "lower")]


@at_any_step
def test_a_parameter_of_compiled_code_that_holds_the_loss(found: Any, broken: int) -> None:
    torch._dynamo.reset()
    model: Any = named(
        inputs=nn.Linear(FEATURES, WIDTH), act=nn.ReLU(), head=nn.Linear(WIDTH, CLASSES)
    )
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)
    loss_of = torch.compile(
        lambda batch: cross_entropy(model(batch), False), backend="eager", fullgraph=True
    )

    def step(on: bool) -> None:
        if on:
            with torch.no_grad():
                model.head.weight[0, 0] = math.nan
        optimizer.zero_grad()
        loss_of(features(False)).backward()
        optimizer.step()

    train(model, broken, step)
    ((at, data),) = found()
    assert (at, data["direction"], data["parameter"]) == (broken, "parameter", "head.weight")
    assert data["nan"] == 1


@at_any_step
def test_the_second_of_two_losses_that_have_no_graph_in_common(found: Any, broken: int) -> None:
    model: Any = named(
        trunk=nn.Linear(FEATURES, WIDTH),
        head=nn.Linear(WIDTH, CLASSES),
        aside=nn.Linear(WIDTH, CLASSES),
        fault=Fault(spoil),
    )
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)

    def step(on: bool) -> None:
        optimizer.zero_grad()
        hidden = model.trunk(features(False))
        cross_entropy(model.head(hidden), False).backward()
        cross_entropy(model.fault(model.aside(hidden.detach())), False).backward()
        optimizer.step()

    train(model, broken, step)
    ((at, direction, _),) = told(found)
    assert (at, direction) == (broken, "forward")


@at_any_step
def test_an_expert_that_breaks_and_is_idle_from_then_on_is_told_of_once(
    found: Any, broken: int
) -> None:
    model: Any = named(used=nn.Linear(FEATURES, CLASSES), seldom=nn.Linear(FEATURES, CLASSES))
    optimizer = adam(model.parameters())
    tv.watch(model, optimizer, strict=True)

    def step(on: bool) -> None:
        if on:
            with torch.no_grad():
                model.seldom.weight[0] = math.nan
        optimizer.zero_grad()
        expert = model.seldom if on else model.used
        cross_entropy(expert(features(False)), False).backward()
        optimizer.step()

    train(model, broken, step)
    assert told(found) == [(broken, "parameter", "seldom")]


class Complex(nn.Module):
    """The size of a product with a complex weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, CLASSES, dtype=torch.complex64))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs.to(torch.complex64) @ self.weight).abs()


@at_any_step
@pytest.mark.parametrize("direction", ["parameter", "backward"])
@pytest.mark.parametrize("make", [sgd, adam])
def test_a_complex_weight(found: Any, broken: int, direction: str, make: Any) -> None:
    model: Any = named(
        inputs=nn.Linear(FEATURES, WIDTH), complex=Complex(), behind=Fault(spoil_gradient)
    )
    optimizer = make(model.parameters())
    tv.watch(model, optimizer, strict=True)

    def step(on: bool) -> None:
        if direction == "parameter":
            arm(model, False)
            if on:
                model.complex.weight.data[0, 0] = complex(0.0, math.nan)
        optimizer.zero_grad()
        cross_entropy(model(features(False)), False).backward()
        optimizer.step()

    train(model, broken, step)
    assert told(found) == [(broken, direction, "complex")]


class Again(nn.Module):
    """Computes its part once more in the backward pass."""

    def __init__(self, before: nn.Module, part: nn.Module) -> None:
        super().__init__()
        self.before, self.part = before, part

    def forward(self, inputs: Tensor) -> Any:
        return checkpoint(self.part, self.before(inputs), use_reentrant=True)


@pytest.mark.filterwarnings("ignore:None of the inputs")
@at_any_step
def test_a_checkpoint_inside_of_another(found: Any, broken: int) -> None:
    inner = named(first=layer(), middle=Fault(spoil), last=layer())
    outer = Again(layer(), inner)
    model = named(
        outermost=Again(nn.Linear(FEATURES, WIDTH), outer), head=nn.Linear(WIDTH, CLASSES)
    )
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)

    def step(on: bool) -> None:
        optimizer.zero_grad()
        cross_entropy(model(features(False)), False).backward()
        optimizer.step()

    train(model, broken, step)
    assert told(found) == [(broken, "forward", "outermost.part.part.middle")]
