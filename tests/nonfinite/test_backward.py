"""A backward pass that breaks after a finite forward pass and loss: the layer that backward met first."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nonfinite.bench import (
    CLASSES,
    FEATURES,
    STEPS,
    WIDTH,
    WORDS,
    Case,
    Fault,
    Found,
    Training,
    features,
    run,
    spoil_gradient,
    table,
)
from nonfinite.models import BASES, Base, mlp, named, wide, words
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import trainvitals.hooks as tv


def hooked(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The identity, with a hook of the user's on its gradient."""

    def forward(x: Tensor) -> Tensor:
        out = x.clone()
        out.register_hook(act)  # type: ignore[no-untyped-call]
        return out

    return forward


ARITHMETIC = {
    "root of zero": lambda x: x + torch.sqrt(x * 0),
    "norm of zero": lambda x: x + (x * 0).square().sum(1, keepdim=True).sqrt(),
    "power of zero": lambda x: x + (x * 0) ** 0.5,
    "unselected root": lambda x: torch.where(x > 0, torch.sqrt(x), torch.zeros(())),
    "unselected log": lambda x: torch.where(x > 0, torch.log(x * (x > 0)), x),
    "arc cosine of one": lambda x: x + torch.acos(x * 0 + 1),
    "hypotenuse of nothing": lambda x: x + torch.hypot(x * 0, x * 0),
    "a function of the user's": spoil_gradient,
    "a hook that makes NaN": hooked(lambda gradient: gradient * math.nan),
    "a hook that makes infinity": hooked(lambda gradient: gradient / 0),
    "overflow": lambda x: torch.sin(torch.sin(x) * 1e30) * 1e15,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(check: Any, name: str, step: int) -> None:
    found = Found("backward", "lower", spread=("inputs",))
    check(Case(lambda: Training(mlp(Fault(ARITHMETIC[name]))), found), step)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_every_base_model(check: Any, base: Base, step: int) -> None:
    found = Found("backward", base.below)
    check(Case(lambda: Training(base.build(Fault(spoil_gradient)), base.batch), found), step)


# Gradients of single parameters


def own_hook(
    name: str, act: Callable[[Tensor], Tensor], base: Callable[[nn.Module], Any] = mlp
) -> Training:
    """A parameter whose own hook spoils its gradient, and no other."""
    model = base(Fault(lambda x: x))
    fault: Any = model.middle
    parameter = model.get_parameter(name)
    parameter.register_hook(lambda gradient: act(gradient) if fault.on else gradient)  # type: ignore[no-untyped-call]
    return Training(model)


def accumulated_hook(name: str) -> Training:
    model = mlp(Fault(lambda x: x))
    fault: Any = model.middle

    def hook(parameter: Tensor) -> None:
        if fault.on and parameter.grad is not None:
            parameter.grad.mul_(math.nan)

    model.get_parameter(name).register_post_accumulate_grad_hook(hook)
    return Training(model)


def one_value(gradient: Tensor) -> Tensor:
    out = gradient.clone()
    out.view(-1)[3] = math.nan
    return out


def by_hand(name: str) -> Callable[[Training, bool], None]:
    """Code of the user's that spoils a gradient before the optimizer's step."""

    def after_backward(training: Training, on: bool) -> None:
        gradient = training.model.get_parameter(name).grad
        if on and gradient is not None:
            gradient.view(-1)[0] = math.nan

    return after_backward


def sparse() -> Training:
    torch.manual_seed(4)
    embed = nn.Embedding(WORDS, WIDTH, sparse=True)
    model = named(embed=embed, middle=Fault(spoil_gradient), head=nn.Linear(WIDTH, CLASSES))
    return Training(model, lambda on: words(on)[:, 0])


SINGLE = {
    "a whole weight": Case(
        lambda: own_hook("lower.weight", lambda gradient: gradient * math.nan),
        Found("backward", "lower", "lower.weight", nan=WIDTH * WIDTH, spread=()),
    ),
    "one value of a weight": Case(
        lambda: own_hook("inputs.weight", one_value),
        Found("backward", "inputs", "inputs.weight", nan=1, spread=()),
    ),
    "one value of a bias": Case(
        lambda: own_hook("head.bias", one_value),
        Found("backward", "head", "head.bias", nan=1, spread=()),
    ),
    "a whole big weight": Case(
        lambda: own_hook("big.weight", lambda gradient: gradient * math.nan, wide),
        Found("backward", "big", "big.weight", nan=512 * 512, spread=()),
    ),
    "one value of a big weight": Case(
        lambda: own_hook("big.weight", one_value, wide),
        Found("backward", "big", "big.weight", nan=1, spread=()),
    ),
    "an infinite weight": Case(
        lambda: own_hook("hidden.weight", lambda gradient: gradient / 0),
        Found("backward", "hidden", "hidden.weight", spread=()),
    ),
    "a hook after accumulation": Case(
        lambda: accumulated_hook("lower.bias"), Found("backward", "lower", "lower.bias", spread=())
    ),
    "code before the step": Case(
        lambda: Training(mlp(nn.Identity()), after_backward=by_hand("lower.weight")),
        Found("backward", "lower", "lower.weight", nan=1, spread=()),
    ),
    "a sparse gradient": Case(sparse, Found("backward", "embed", "embed.weight", spread=())),
}


@table(SINGLE)
def test_a_single_parameter(check: Any, case: Case, step: int) -> None:
    check(case, step)


# What the training does with gradients


def clip(training: Training, on: bool) -> None:
    """Spreads a non-finite norm over all gradients."""
    nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)


def clip_values(training: Training, on: bool) -> None:
    nn.utils.clip_grad_value_(training.model.parameters(), 0.5)


def zero_error(output: Any, on: bool) -> Tensor:
    """A loss that is finite and has no derivative at the faulty step: the root of an error of zero."""
    error = output - output.detach() if on else output
    return error.square().mean().sqrt()


def checkpointed(reentrant: bool) -> Training:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.lower = nn.Linear(FEATURES, WIDTH)
            self.part = named(a=nn.Linear(WIDTH, WIDTH), middle=Fault(spoil_gradient), b=nn.Tanh())
            self.head = nn.Linear(WIDTH, CLASSES)

        def forward(self, inputs: Tensor) -> Any:
            return self.head(checkpoint(self.part, self.lower(inputs), use_reentrant=reentrant))

    return Training(Checkpointed())


def spoilt() -> nn.Module:
    return mlp(Fault(spoil_gradient))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


LOWER = Found("backward", "lower", spread=("inputs",))
USES = {
    "clipped by a NaN norm": Case(
        lambda: Training(spoilt(), after_backward=clip), Found("backward", "lower")
    ),
    "clipped by an infinite norm": Case(
        lambda: own_hook_clipped(), Found("backward", "lower", "lower.bias")
    ),
    "clipped by value": Case(lambda: Training(spoilt(), after_backward=clip_values), LOWER),
    "in the second of four micro-batches": Case(lambda: Training(spoilt(), micro_batches=4), LOWER),
    "in a big model": Case(
        lambda: Training(wide(Fault(spoil_gradient))), Found("backward", "big", spread=("lower",))
    ),
    "in a bfloat16 model": Case(
        lambda: Training(spoilt().bfloat16(), lambda on: features(on).bfloat16()), LOWER
    ),
    "in a float64 model": Case(
        lambda: Training(spoilt().double(), lambda on: features(on).double()), LOWER
    ),
    "with Adam": Case(lambda: Training(spoilt(), make_optimizer=adam), LOWER),
    "with a sample at every step": Case(lambda: Training(spoilt(), watch={"interval": 1}), LOWER),
    "with no sample near": Case(lambda: Training(spoilt(), watch={"interval": 1000}), LOWER),
    "with losses logged": Case(lambda: Training(spoilt(), logs=True), LOWER),
    "in a loss without derivative": Case(
        lambda: Training(mlp(nn.Identity()), loss=zero_error), Found("backward", "head")
    ),
    "inside a checkpoint": Case(
        lambda: checkpointed(False), Found("backward", "part.a", spread=("lower",))
    ),
    "inside a reentrant checkpoint": Case(
        lambda: checkpointed(True), Found("backward", "part.a", spread=("lower",))
    ),
}


def own_hook_clipped() -> Training:
    training = own_hook("lower.bias", lambda gradient: gradient / 0)
    training.after_backward = clip
    return training


@table(USES)
def test_whatever_is_done_with_gradients(check: Any, case: Case, step: int) -> None:
    check(case, step)


def test_the_number_of_bad_gradients_is_told(found: Any) -> None:
    run(Training(spoilt()), 7)
    ((_, data),) = found()
    assert data["gradients"] == 4  # weight and bias of the two layers below
    sizes = {"lower.weight": WIDTH * WIDTH, "lower.bias": WIDTH}
    assert data["nan"] == sizes[data["parameter"]]


@pytest.mark.parametrize("interval", [None, 10, 1000])
@pytest.mark.parametrize("evaluation", [0, 1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_an_evaluation_of_a_closure_is_told_with_the_gradients_that_broke_the_next(
    found: Any, step: int, evaluation: int, interval: int | None
) -> None:
    model: Any = spoilt()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=4)
    tv.watch(model, optimizer, interval=interval, strict=True)
    for index in range(step + 4):
        inputs, evaluations = features(False), 0

        def closure(index: int = index, inputs: Tensor = inputs) -> Tensor:
            nonlocal evaluations
            model.middle.on = index == step and evaluations == evaluation
            evaluations += 1
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), torch.arange(len(inputs)) % CLASSES)
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        assert evaluations > 2 or index > step
    ((at, data),) = found()
    assert (at, data["direction"], data["layer"]) == (step, "backward", "lower")
