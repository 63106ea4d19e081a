"""A forward pass that breaks: the first layer that made it, the values that went in, and where it spread."""

import math
from typing import Any

import pytest
import torch
from nonfinite.bench import (
    BATCH,
    FEATURES,
    LENGTH,
    STEPS,
    WIDTH,
    Case,
    Fault,
    Found,
    Training,
    features,
    run,
    spoil,
    table,
)
from nonfinite.models import BASES, Base, mlp, named, words
from torch import Tensor, nn

SPREAD = ("hidden", "head", "")
LOW = -1e6

ARITHMETIC = {
    "log of a negative": lambda x: torch.log(x + LOW),
    "log of zero": lambda x: torch.log(x * 0),
    "root of a negative": lambda x: torch.sqrt(x + LOW),
    "power of a negative": lambda x: (x + LOW) ** 0.5,
    "division by zero": lambda x: (x.abs() + 1) / (x * 0),
    "zero over zero": lambda x: (x - x) / (x - x).norm(dim=1, keepdim=True),
    "overflow of exp": lambda x: torch.exp(x + 200),
    "overflow of a product": lambda x: (x.abs() + 1) * 1e30 * 1e30,
    "infinity minus infinity": lambda x: x / 0 - x / 0,
    "arc cosine beyond one": lambda x: torch.acos(x.abs() + 2),
    "mean of nothing": lambda x: x + x[:0].mean(),
    "softmax of masked rows": lambda x: torch.softmax(x - math.inf, -1),
    "float16 overflow": lambda x: ((x.abs() + 1).half() * 60000 * 60000).float(),
    "bfloat16 overflow": lambda x: ((x.abs() + 1).bfloat16() * 1e38 * 1e3).float(),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(check: Any, name: str, step: int) -> None:
    found = Found("forward", "middle", spread=SPREAD)
    check(Case(lambda: Training(mlp(Fault(ARITHMETIC[name]))), found), step)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_every_base_model(check: Any, base: Base, step: int) -> None:
    found = Found("forward", base.place, spread=base.spread)
    check(Case(lambda: Training(base.build(Fault(spoil)), base.batch), found), step)


def test_the_ranges_are_those_of_what_went_into_the_producer(found: Any) -> None:
    fault = Fault(lambda x: seen.append(x.detach().clone()) or torch.log(x + LOW))
    seen: list[Tensor] = []
    run(Training(mlp(fault)), 7, after=0)
    ((_, data),) = found()
    ((described,), (inputs,)) = data["inputs"], seen
    assert (described["shape"], described["nonfinite"]) == ([BATCH, WIDTH], 0)
    for key, value in (("min", inputs.min()), ("max", inputs.max()), ("mean", inputs.mean())):
        assert described[key] == pytest.approx(value.item(), rel=1e-5)
    assert (data["type"], data["nan"], data.get("inf", 0)) == ("Fault", BATCH * WIDTH, 0)


# What layers do of their own accord, given a batch that no training should have


def empty(on: bool) -> Tensor:
    """Words, and at the faulty step one sample without any."""
    ids = words(on)
    ids[2] *= int(not on)
    return ids


def huge(on: bool) -> Tensor:
    return features(on) * (1e30 if on else 1.0)


def without_eps() -> nn.Module:
    torch.manual_seed(1)
    return named(
        lower=nn.Linear(FEATURES, WIDTH),
        flat=Fault(lambda x: x * 0 + 1),
        norm=nn.LayerNorm(WIDTH, eps=0.0),
        head=nn.Linear(WIDTH, 4),
    )


class Gated(nn.Module):
    """An LSTM behind a gain that overflows inside it, not before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.gain = Fault(lambda x: torch.full_like(x, 3e38))
        self.lstm = nn.LSTM(FEATURES, WIDTH, batch_first=True)
        # What comes from the input and what from the state overflow apart from each other, and are added: inf - inf.
        nn.init.constant_(self.lstm.weight_ih_l0, 2.0)
        nn.init.constant_(self.lstm.weight_hh_l0, -2.0)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, inputs: Tensor) -> Any:
        first = self.gain(torch.ones(1, len(inputs), WIDTH))
        hidden, _ = self.lstm(self.gain(inputs)[:, None], (first, torch.zeros_like(first)))
        return self.head(hidden[:, -1])


class Masked(nn.Module):
    """Attention whose mask hides every key of one sample at the faulty step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(12, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, ids: Tensor) -> Any:
        hidden = self.embed(ids)
        mixed, _ = self.attention(hidden, hidden, hidden, key_padding_mask=ids == 0)
        return self.head(mixed.sum(1))


def growing() -> nn.Module:
    torch.manual_seed(1)
    parts = [Fault(lambda x: x.sign() * (1.0 + x.abs()) * 1e11) for _ in range(4)]
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), *parts, nn.Linear(WIDTH, 4))


class Between(nn.Module):
    """Its own code makes what a reshaping is the first layer to see."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.lower, self.fault = nn.Linear(FEATURES, WIDTH), fault
        self.shape, self.head = nn.Unflatten(1, (WIDTH, 1)), nn.Linear(WIDTH, 4)

    def forward(self, inputs: Tensor) -> Any:
        hidden = self.lower(inputs)
        hidden = hidden * math.nan if self.fault.on else hidden
        return self.head(self.shape(hidden)[:, :, 0])


NATURAL = {
    "a model's own code before a reshaping": Case(
        lambda: Training(Between(Fault(lambda x: x))),
        Found("forward", "", spread=("shape", "head")),
    ),
    "a norm without variance": Case(
        lambda: Training(without_eps()), Found("forward", "norm", spread=("head", ""))
    ),
    "a mean over a sample without words": Case(
        lambda: Training(BASES["bag"].build(nn.Identity()), empty),
        Found("forward", "pool", nan=WIDTH, spread=("project", "middle", "head", "")),
    ),
    "an lstm whose gates overflow": Case(
        lambda: Training(Gated()),
        Found("forward", "lstm", inputs=lambda into: into[0]["max"] > 1e38, spread=("head", "")),
    ),
    "attention without any key": Case(
        lambda: Training(Masked(), empty), Found("forward", "attention", nan=LENGTH * WIDTH)
    ),
    "growth that overflows in the fourth layer": Case(
        lambda: Training(growing()),
        Found("forward", "4", spread=("5", ""), inputs=lambda into: into[0]["max"] > 1e32),
    ),
    "a finite batch too large for a product": Case(
        lambda: Training(mlp(Fault(lambda x: x * x)), huge), Found("forward", "middle")
    ),
}


@table(NATURAL)
def test_a_layer_of_its_own_accord(check: Any, case: Case, step: int) -> None:
    check(case, step)


# How the arithmetic runs


def autocast(dtype: torch.dtype) -> Any:
    def call(model: nn.Module, batch: Tensor) -> Any:
        with torch.autocast("cpu", dtype=dtype):
            return model(batch)

    return call


def summing(middle: nn.Module) -> nn.Module:
    """A layer whose sums pass the largest float16 number when its input is 60000."""
    torch.manual_seed(1)
    ones = nn.Linear(WIDTH, WIDTH)
    nn.init.constant_(ones.weight, 1.0)
    return named(lower=nn.Linear(FEATURES, WIDTH), middle=middle, ones=ones)


def scaled_step(training: Training, loss: Tensor) -> None:
    """A backward pass as a gradient scaler starts it."""
    (loss * 1024.0).backward()
    for parameter in training.model.parameters():
        parameter.grad /= 1024.0  # type: ignore[operator]


def at_once(training: Training, loss: Tensor) -> None:
    """Gradients by `torch.autograd.grad`, put into place by hand."""
    weights = list(training.model.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient


def functional(model: nn.Module, batch: Tensor) -> Any:
    return torch.func.functional_call(model, dict(model.named_parameters()), (batch,))


def adapted(model: nn.Module, batch: Any) -> Any:
    """With weights of the moment, as an inner loop makes them; those of one layer are NaN at the faulty step."""
    inputs, on = batch
    weights = {
        name: weight * (math.nan if on and name == "lower.weight" else 0.9)
        for name, weight in model.named_parameters()
    }
    return torch.func.functional_call(model, weights, (inputs,))


def lbfgs(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(parameters, lr=0.01, max_iter=2)


MODES = {
    "under float16 autocast": Case(
        lambda: Training(summing(Fault(lambda x: x * 0 + 60000)), call=autocast(torch.float16)),
        Found("forward", "ones"),
    ),
    "under bfloat16 autocast": Case(
        lambda: Training(mlp(Fault(spoil)), call=autocast(torch.bfloat16)),
        Found("forward", "middle", spread=SPREAD),
    ),
    "in a bfloat16 model": Case(
        lambda: Training(mlp(Fault(spoil)).bfloat16(), lambda on: features(on).bfloat16()),
        Found("forward", "middle", spread=SPREAD),
    ),
    "in a float64 model": Case(
        lambda: Training(mlp(Fault(spoil)).double(), lambda on: features(on).double()),
        Found("forward", "middle", spread=SPREAD),
    ),
    "in the second of four micro-batches": Case(
        lambda: Training(mlp(Fault(spoil)), micro_batches=4),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with a scaled loss": Case(
        lambda: Training(mlp(Fault(spoil)), backward=scaled_step),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with gradients by autograd.grad": Case(
        lambda: Training(mlp(Fault(spoil)), backward=at_once),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with functional_call": Case(
        lambda: Training(mlp(Fault(spoil)), call=functional),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with weights of the moment in a row of layers": Case(
        lambda: Training(mlp(nn.Identity()), lambda on: (features(on), on), adapted),
        Found("forward", "lower", spread=("middle", *SPREAD)),
    ),
    "with weights of the moment": Case(
        lambda: Training(mlp(Fault(lambda x: x)), lambda on: (features(on), on), adapted),
        Found("forward", "lower", spread=("middle", *SPREAD)),
    ),
    "with a closure": Case(
        lambda: Training(mlp(Fault(spoil)), make_optimizer=lbfgs, closure=True),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with a frozen lower half": Case(
        lambda: Training(freeze(mlp(Fault(spoil)), "inputs", "lower")),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with a sample at every step": Case(
        lambda: Training(mlp(Fault(spoil)), watch={"interval": 1}),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with no sample near": Case(
        lambda: Training(mlp(Fault(spoil)), watch={"interval": 1000}),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with layers left out of the statistics": Case(
        lambda: Training(mlp(Fault(spoil)), watch={"exclude": "mid*"}),
        Found("forward", "middle", spread=SPREAD),
    ),
    "with losses logged": Case(
        lambda: Training(mlp(Fault(spoil)), logs=True),
        Found("forward", "middle", spread=SPREAD),
    ),
}


def freeze(model: nn.Module, *names: str) -> nn.Module:
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model


@table(MODES)
def test_however_the_arithmetic_runs(check: Any, case: Case, step: int) -> None:
    check(case, step)


# Compiled: the place is the part that was compiled, as nothing can be seen inside


def compiled(backend: str) -> Training:
    model = mlp(Fault(spoil))
    return Training(torch.compile(model, backend=backend))  # type: ignore[arg-type]


def compiled_part() -> Training:
    model = mlp(nn.Sequential(nn.Linear(WIDTH, WIDTH), Fault(spoil)))
    model.middle = torch.compile(model.middle, backend="eager")  # type: ignore[assignment]
    return Training(model)


COMPILED = {
    "the whole model, eager": Case(lambda: compiled("eager"), Found("forward", "")),
    "the whole model, aot_eager": Case(lambda: compiled("aot_eager"), Found("forward", "")),
    "a part": Case(compiled_part, Found("forward", "middle", spread=SPREAD)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@table(COMPILED)
def test_compiled(check: Any, case: Case, step: int) -> None:
    torch._dynamo.reset()
    check(case, step)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_by_inductor(check: Any) -> None:
    torch._dynamo.reset()
    check(Case(lambda: compiled("inductor"), Found("forward", "")), 7)
