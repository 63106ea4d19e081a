"""What is meant to be infinite or NaN, or never reaches the weights, is no finding."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nonfinite.bench import (
    BATCH,
    CLASSES,
    FEATURES,
    WIDTH,
    Fault,
    features,
    sgd,
    spoil,
)
from nonfinite.models import BASES, Base, mlp, named, words
from torch import Tensor, nn

import trainvitals.hooks as tv

STEPS = 45


def always(code: Callable[[Tensor], Any]) -> Fault:
    fault = Fault(code)
    fault.on = True
    return fault


class Code(nn.Module):
    """A layer of the given code between two others."""

    def __init__(self, code: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.lower = nn.Linear(FEATURES, WIDTH)
        self.middle = Fault(code)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.middle.on = True

    def forward(self, inputs: Tensor) -> Any:
        return self.head(self.middle(self.lower(inputs)))


class Scores(nn.Module):
    """Hands scores of minus infinity from one module to the next."""

    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(torch.arange(x.shape[-1]) > 2, -math.inf)


class Weigh(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)


class Chosen(nn.Module):
    """Log-probabilities of minus infinity, of which only the finite ones are taken."""

    def forward(self, x: Tensor) -> Tensor:
        logs = torch.log(x.softmax(-1).detach() * (torch.arange(x.shape[-1]) < 3))
        return torch.where(torch.arange(x.shape[-1]) < 3, logs + x, torch.zeros(()))


class Padding(nn.Module):
    """Leaves rows of padding as NaN, for the loss to leave out."""

    def forward(self, x: Tensor) -> Tensor:
        padding = torch.zeros(len(x), 1)
        padding[-2:] = math.nan
        return x + padding


class Spare(nn.Module):
    """A frozen branch of broken weights, called or not, that the output does not depend on."""

    def __init__(self, called: bool) -> None:
        super().__init__()
        self.body, self.spare, self.called = (
            mlp(nn.Identity()),
            nn.Linear(FEATURES, CLASSES),
            called,
        )
        self.spare.requires_grad_(False).weight.fill_(math.nan)

    def forward(self, inputs: Tensor) -> Any:
        if self.called:
            self.spare(inputs)
        return self.body(inputs)


def trimmed(output: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output[:-2], torch.arange(BATCH - 2) % CLASSES)


def usual(output: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, torch.arange(len(output)) % CLASSES)


Model = Callable[[], nn.Module]
INTENDED: dict[str, tuple[Model, Callable[[bool], Any], Callable[[Tensor], Tensor]]] = {
    "an additive mask": (lambda: BASES["transformer"].build(nn.Identity()), words, usual),
    "masked scores between modules": (
        lambda: named(a=nn.Linear(FEATURES, WIDTH), b=Scores(), c=Weigh(), d=nn.Linear(WIDTH, 4)),
        features,
        usual,
    ),
    "masked logits": (
        lambda: named(a=nn.Linear(FEATURES, CLASSES), b=Scores()),
        features,
        lambda output: nn.functional.cross_entropy(output, torch.arange(BATCH) % 3),
    ),
    "logs of zero that are not chosen": (
        lambda: named(a=nn.Linear(FEATURES, WIDTH), b=Chosen(), c=nn.Linear(WIDTH, CLASSES)),
        features,
        usual,
    ),
    "maximum over nothing": (
        lambda: Code(lambda x: torch.maximum(x, torch.full_like(x, -math.inf))),
        features,
        usual,
    ),
    "NaN that is replaced": (
        lambda: Code(lambda x: torch.nan_to_num(x + torch.where(x > 0, math.nan, 0.0))),
        features,
        usual,
    ),
    "a bad output that is replaced later": (
        lambda: named(
            a=nn.Linear(FEATURES, WIDTH),
            b=always(lambda x: torch.where(x > 0, math.nan, x)),
            c=always(lambda x: torch.where(x.isnan(), 0.0, x)),
            d=nn.Linear(WIDTH, CLASSES),
        ),
        features,
        usual,
    ),
    "rows of padding": (
        lambda: named(a=nn.Linear(FEATURES, CLASSES), b=Padding()),
        features,
        trimmed,
    ),
    "a broken branch that is not called": (lambda: Spare(False), features, usual),
    "a broken branch that is not used": (lambda: Spare(True), features, usual),
}


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, **more: Any) -> None:
    batch, loss = more.get("batch", features), more.get("loss", usual)
    for _ in range(count):
        optimizer.zero_grad()
        value = loss(model(batch(False)))
        value.backward()
        assert value.isfinite()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("watch", [{}, {"interval": 1}], ids=["default", "sampled"])
@pytest.mark.parametrize("name", INTENDED)
def test_intended(found: Any, name: str, watch: dict[str, Any]) -> None:
    make, batch, loss = INTENDED[name]
    model = make()
    optimizer = sgd(p for p in model.parameters() if p.requires_grad)
    tv.watch(model, optimizer, strict=True, **watch)
    steps(model, optimizer, STEPS, batch=batch, loss=loss)
    assert found() == []


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_a_healthy_training(found: Any, base: Base) -> None:
    model = base.build(nn.Identity())
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)
    steps(model, optimizer, STEPS, batch=base.batch)
    assert found() == []


# Steps that training itself leaves out


def watched(middle: nn.Module | None = None) -> tuple[Any, torch.optim.Optimizer]:
    model = mlp(middle or nn.Identity())
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)
    return model, optimizer


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_evaluation_may_be_bad(found: Any, mode: Any) -> None:
    model, optimizer = watched(Fault(spoil))
    for _ in range(STEPS):
        steps(model, optimizer, 1)
        model.middle.on = True
        with mode():
            assert model(features(False)).isnan().any()
        model.middle.on = False
    assert found() == []


def test_a_step_that_the_scaler_skips(found: Any) -> None:
    model, optimizer = watched()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for index in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(usual(model(features(False)))).backward()
        if index % 9 == 4:
            model.lower.weight.grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() < 4.0
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert found() == []


def test_a_scale_that_overflows_until_it_fits(found: Any) -> None:
    """A scaler begins too high by design: scaled loss and gradients are infinite and the step is skipped."""
    model, optimizer = watched()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    skipped = 0
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = usual(model(features(False))) * 40.0
        scaled = scaler.scale(loss)
        assert loss.isfinite()
        skipped += int(scaled.isinf())
        scaled.backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert skipped >= 2
    assert found() == []


def test_gradients_of_each_sample_by_transforms_of_functions(found: Any) -> None:
    """What modules see inside them stands for many samples at once, of which one that is bad is left out."""
    model, optimizer = watched()
    transforms = torch.func

    def loss(weights: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        output = transforms.functional_call(model, weights, (sample[None],))
        return nn.functional.cross_entropy(output, label[None])

    gradients_of = transforms.vmap(transforms.grad(loss), in_dims=(None, 0, 0))
    for _ in range(STEPS):
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        batch = features(False)
        batch[0] = math.nan
        gradients = gradients_of(weights, batch, torch.arange(BATCH) % CLASSES)
        for name, weight in model.named_parameters():
            weight.grad = gradients[name][1:].mean(0)
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert found() == []
