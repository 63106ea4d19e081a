"""What the cases share: a fault that can be switched on, a training that has it at one step, and what is expected."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import trainvitals.hooks as tv

STEPS = (0, 7, 41)
"""Steps of the fault: the first one, one of the first samples, one that default settings do not sample."""
BATCH, FEATURES, WIDTH, CLASSES = 16, 8, 6, 4
WORDS, LENGTH = 12, 5
AFTER = 3
"""Steps that each training goes on after the fault: whatever stays broken must not be told again."""

Act = Callable[[Tensor], Any]


class Fault(nn.Module):
    """Passes its input on; while `on`, through `act`. Remembers what went in last."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act
        self.on = False

    def forward(self, inputs: Tensor) -> Any:
        return self.act(inputs) if self.on else inputs


def spoil(inputs: Tensor) -> Tensor:
    """The plainest fault: every value becomes NaN."""
    return inputs * math.nan


class NanGradient(torch.autograd.Function):
    """The identity, whose gradient is NaN."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * math.nan


def spoil_gradient(inputs: Tensor) -> Tensor:
    """Finite in the forward pass, NaN in the backward pass."""
    out: Tensor = NanGradient.apply(inputs)
    return out


def features(on: bool) -> Tensor:
    """The usual batch, `(BATCH, FEATURES)`."""
    return torch.randn(BATCH, FEATURES)


def cross_entropy(output: Any, on: bool) -> Tensor:
    """The usual loss, of logits or of a tuple that begins with them."""
    logits = output[0] if isinstance(output, tuple) else output
    return nn.functional.cross_entropy(logits.float(), torch.arange(len(logits)) % CLASSES)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


@dataclass
class Training:
    """A small training. Each callable that takes a bool is told whether this is the faulty step."""

    model: nn.Module
    batch: Callable[[bool], Any] = features
    call: Callable[[nn.Module, Any], Any] = lambda model, batch: model(batch)
    loss: Callable[[Any, bool], Tensor] = cross_entropy
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = sgd
    before: Callable[["Training"], None] = lambda training: None
    """Tampers with model or optimizer before the faulty step."""
    after_backward: Callable[["Training", bool], None] = lambda training, on: None
    """Between backward and the optimizer's step, at every step."""
    backward: Callable[["Training", Tensor], None] = lambda training, loss: loss.backward()
    micro_batches: int = 1
    """The fault is in the second of several."""
    closure: bool = False
    """Hand forward and backward to the optimizer, as LBFGS wants them."""
    logs: bool = False
    """Log each loss after its step."""
    watch: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `tv.watch`."""
    watched: Any = None
    """What is given to `tv.watch`, where it is not the model."""
    optimizer: torch.optim.Optimizer = None  # type: ignore[assignment]


class Truth(NamedTuple):
    """What really was finite at the faulty step, seen from outside."""

    loss: bool
    gradients: bool
    weights: bool
    """After the step."""

    def fits(self, direction: str) -> bool:
        """Whether a fault of this direction leaves it so. A bad loss may spoil all that follows, or nothing."""
        if direction == "backward":
            return self.loss and not self.gradients
        if direction == "update":
            return self.loss and self.gradients and not self.weights
        return not self.loss


def arm(model: nn.Module, on: bool) -> None:
    """Switch every fault in a model on or off."""
    for module in model.modules():
        if isinstance(module, Fault) and module.on != on:
            module.on = on


def finite(tensors: Iterable[Tensor | None]) -> bool:
    return all(
        bool((t.coalesce().values() if t.is_sparse else t).isfinite().all())
        for t in tensors
        if t is not None
    )


def run(training: Training, step: int, after: int = AFTER) -> Truth:
    """Train up to `after` steps beyond the faulty one; what was finite at that one."""
    model = training.model
    weights = [p for p in model.parameters()]
    optimizer = training.optimizer = training.make_optimizer(weights)
    tv.watch(training.watched or model, optimizer, strict=True, **training.watch)
    truth = None
    for index in range(step + after + 1):
        on = index == step
        if on:
            training.before(training)
        losses: list[Tensor] = []

        def evaluate(on: bool = on, losses: list[Tensor] = losses) -> Tensor:
            optimizer.zero_grad()
            for part in range(training.micro_batches):
                faulty = on and part == min(1, training.micro_batches - 1)
                arm(model, faulty)
                output = training.call(model, training.batch(faulty))
                loss = training.loss(output, faulty) / training.micro_batches
                training.backward(training, loss)
                losses.append(loss.detach())
            training.after_backward(training, on)
            return loss

        if training.closure:
            optimizer.step(evaluate)  # type: ignore[arg-type]
        else:
            evaluate()
        gradients = finite(weight.grad for weight in weights)
        if not training.closure:
            optimizer.step()
        if training.logs:
            tv.log({"train/loss": sum(losses)})
        if on:
            truth = Truth(finite(losses), gradients, finite(weights))
        elif index < step:
            assert finite(losses) and gradients and finite(weights), "broken before the fault"
    assert truth is not None, "the training ended before the fault"
    return truth


@dataclass(frozen=True)
class Found:
    """What the one finding has to say."""

    direction: str
    layer: str | None = ""
    """None: the case leaves it open."""
    parameter: str | None = None
    """None: any of the layer's."""
    nan: int | None = None
    """Of the offending tensor, where it is stated."""
    spread: tuple[str, ...] | None = None
    inputs: Callable[[list[dict[str, Any]]], bool] | None = None
    """What has to hold of the ranges of what went in."""


@dataclass(frozen=True)
class Case:
    """A training with a fault, and what has to be found."""

    build: Callable[[], Training]
    found: Found
    steps: tuple[int, ...] = STEPS


def table(cases: dict[str, Case]) -> pytest.MarkDecorator:
    """Every case at every one of its steps."""
    return pytest.mark.parametrize(
        ("case", "step"),
        [
            pytest.param(case, step, id=f"{name} at {step}".replace(" ", "-"))
            for name, case in cases.items()
            for step in case.steps
        ],
    )
