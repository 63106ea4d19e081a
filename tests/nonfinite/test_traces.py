"""Faults of backward and of the optimizer that leave little trace by the time of the next loss."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from nonfinite.bench import (
    FEATURES,
    LENGTH,
    WIDTH,
    WORDS,
    Case,
    Fault,
    Found,
    Training,
    cross_entropy,
    features,
    spoil_gradient,
    table,
)
from nonfinite.models import Net, head, layer, lower, mlp, named, words
from torch import Tensor, nn, optim
from torch.nn import functional

import trainvitals.hooks as tv

Make = Callable[[Iterable[nn.Parameter]], optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda p: optim.SGD(p, lr=0.01),
    "momentum": lambda p: optim.SGD(p, lr=0.01, momentum=0.9),
    "Adam": lambda p: optim.Adam(p),
    "AdamW": lambda p: optim.AdamW(p, fused=True),
    "AMSGrad": lambda p: optim.Adam(p, amsgrad=True),
    "NAdam": lambda p: optim.NAdam(p),
    "RAdam": lambda p: optim.RAdam(p),
    "Adagrad": lambda p: optim.Adagrad(p),
    "RMSprop": lambda p: optim.RMSprop(p),
}


def plain() -> nn.Module:
    return mlp(nn.Identity())


def one_value(value: float) -> Callable[[Training, bool], None]:
    """Puts it into one place of a gradient, at the faulty step."""

    def after_backward(training: Training, on: bool) -> None:
        gradient = training.model.get_parameter("lower.weight").grad
        if on and gradient is not None:
            gradient[0, 1] = value

    return after_backward


def wiping(make: Make) -> Make:
    """`zero_grad` leaves zeros where a gradient was."""

    def made(parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        optimizer = make(parameters)
        zero = optimizer.zero_grad
        optimizer.zero_grad = lambda *_: zero(set_to_none=False)  # type: ignore[method-assign]
        return optimizer

    return made


def write(training: Training) -> None:
    training.model.get_parameter("hidden.weight").data[0, 0] = math.nan


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_of_minus_infinity(check: Any, name: str) -> None:
    def build() -> Training:
        return Training(
            plain(), after_backward=one_value(-math.inf), make_optimizer=OPTIMIZERS[name]
        )

    check(Case(build, Found("backward", "lower", "lower.weight", spread=())), 41)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_that_is_wiped(check: Any, name: str) -> None:
    def build() -> Training:
        make = wiping(OPTIMIZERS[name])
        return Training(plain(), after_backward=one_value(math.nan), make_optimizer=make)

    check(Case(build, Found("backward", "lower", "lower.weight", spread=())), 41)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "SGD"])
def test_a_weight_that_is_written_while_gradients_are_wiped(check: Any, name: str) -> None:
    """Plain SGD remembers nothing that could tell it from a bad gradient."""

    def build() -> Training:
        return Training(plain(), before=write, make_optimizer=wiping(OPTIMIZERS[name]))

    check(Case(build, Found("parameter", "hidden", "hidden.weight")), 41)


@pytest.mark.parametrize("rate", [math.inf, math.nan])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_that_a_schedule_has_for_one_step(check: Any, name: str, rate: float) -> None:
    def make(parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
        optimizer = OPTIMIZERS[name](parameters)
        schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate if i == 41 else 1.0)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        return optimizer

    check(Case(lambda: Training(plain(), make_optimizer=make), Found("update", None)), 41)


# What overflows


def groups(**values: Any) -> Callable[[Training], None]:
    def before(training: Training) -> None:
        for group in training.optimizer.param_groups:
            group.update(values)

    return before


def huge(training: Training, on: bool) -> None:
    if on:
        training.model.get_parameter("lower.weight").grad.fill_(3e38)  # type: ignore[union-attr]


PRODUCTS = {
    "a rate that is a tensor": Case(
        lambda: Training(plain(), before=groups(lr=torch.tensor(math.nan))), Found("update", None)
    ),
    "a rate times a decay": Case(
        lambda: Training(plain(), before=groups(lr=1e20, weight_decay=1e20)), Found("update", None)
    ),
    "a rate times a gradient": Case(
        lambda: Training(
            plain(),
            loss=lambda out, on: (out * 0).mean(),
            after_backward=huge,
            make_optimizer=lambda p: optim.SGD(p, lr=1e5),
        ),
        Found("update", "lower", "lower.weight", spread=()),
    ),
}


@table(PRODUCTS)
def test_products_that_overflow(check: Any, case: Case, step: int) -> None:
    check(case, step)


# The order in which backward meets parameters that no call of a layer tells of


class Positions(nn.Module):
    """Positions of the model's own, which are used before everything else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed, self.positions = (
            nn.Embedding(WORDS, WIDTH),
            nn.Parameter(torch.zeros(LENGTH, WIDTH)),
        )
        self.first, self.middle, self.last = layer(), Fault(spoil_gradient), layer()
        self.head = head()

    def forward(self, ids: Tensor) -> Any:
        hidden = self.first(self.embed(ids) + self.positions)
        return self.head(self.last(self.middle(hidden)).mean(1))


class Scaled(nn.Module):
    """A factor of the model's own, which is used after everything else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.lower, self.head, self.middle = lower(), head(), Fault(spoil_gradient)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Any:
        return self.middle(self.head(self.lower(inputs)) * self.scale)


def encoder() -> Training:
    """Attention inside reads the weights of a layer that is never called."""
    block = nn.TransformerEncoderLayer(WIDTH, 2, 12, dropout=0.0, batch_first=True)

    def code(net: Any, ids: Tensor) -> Any:
        return net.head(net.encoder(net.embed(ids)).mean(1))

    model = Net(
        code, embed=nn.Embedding(WORDS, WIDTH), encoder=nn.TransformerEncoder(block, 2), head=head()
    )

    def hook(module: nn.Module, into: Any, out: Any) -> Any:
        return (into[0] * math.nan,) if model.on.on else None

    model.encoder.layers[1].linear2.register_full_backward_hook(hook)  # type: ignore[union-attr,index]
    return Training(model, words)


def clip(training: Training, on: bool) -> None:
    parameters = list(training.model.parameters())
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    nn.utils.clip_grads_with_norm_(parameters, 1.0, norm)


ORDER = {
    "positions of the model": Case(
        lambda: Training(Positions(), words), Found("backward", "first")
    ),
    "a factor of the model": Case(lambda: Training(Scaled()), Found("backward", "", "scale")),
    "a layer that attention reads by itself": Case(
        encoder, Found("backward", "encoder.layers.1.linear1")
    ),
    "clipped in two calls": Case(
        lambda: Training(mlp(Fault(spoil_gradient)), after_backward=clip),
        Found("backward", "lower"),
    ),
}


@table(ORDER)
def test_the_parameter_that_backward_met_first(check: Any, case: Case, step: int) -> None:
    check(case, step)


# A second optimizer, which steps when the first one has counted the step


@pytest.mark.parametrize("step", [0, 7, 41])
def test_the_second_optimizer_of_a_step(found: Any, step: int) -> None:
    model: Any = plain()
    rest = [p for name, p in model.named_parameters() if not name.startswith("head")]
    optimizers = [optim.SGD(rest, lr=0.01), optim.Adam(model.head.parameters())]
    tv.watch(model, optimizers, strict=True)
    for index in range(step + 4):
        for optimizer in optimizers:
            optimizer.zero_grad()
        cross_entropy(model(features(False)), False).backward()
        if index == step:
            model.head.weight.grad[0, 0] = math.nan
        for optimizer in optimizers:
            optimizer.step()
    ((at, data),) = found()
    assert (at, data["direction"], data["parameter"]) == (step, "backward", "head.weight")


@pytest.mark.parametrize("step", [0, 7, 41])
def test_the_generator_that_steps_after_the_critic(found: Any, step: int) -> None:
    generator: Any = named(a=lower(), b=Fault(spoil_gradient), c=nn.Linear(WIDTH, FEATURES))
    critic = named(a=lower(), c=nn.Linear(WIDTH, 1))
    first, second = (optim.Adam(model.parameters()) for model in (critic, generator))
    tv.watch([generator, critic], [first, second], strict=True)
    for index in range(step + 4):
        first.zero_grad()
        made = generator(features(False)).detach()
        (
            functional.softplus(critic(made)) + functional.softplus(-critic(features(False)))
        ).mean().backward()
        first.step()
        generator.b.on = index == step
        second.zero_grad()
        functional.softplus(-critic(generator(features(False)))).mean().backward()
        second.step()
        generator.b.on = False
    ((at, data),) = found()
    assert (at, data["direction"], data["layer"]) == (step, "backward", "a")
