"""What breaks after the model: the loss made of its output, and the optimizer's step."""

import math
from collections.abc import Callable
from typing import Any

import torch
from nonfinite.bench import (
    BATCH,
    CLASSES,
    FEATURES,
    Case,
    Fault,
    Found,
    Training,
    cross_entropy,
    features,
    table,
)
from nonfinite.models import mlp, wide
from torch import Tensor, nn
from torch.nn import functional

LOSS = Found("loss", "")


def plain() -> nn.Module:
    return mlp(nn.Identity())


def at_fault(act: Callable[[Tensor], Tensor], **more: Any) -> Case:
    """A loss of the usual output that is `act` of it at the faulty step."""

    def loss(output: Tensor, on: bool) -> Tensor:
        return act(output) if on else cross_entropy(output, on)

    return Case(lambda: Training(plain(), loss=loss, **more), LOSS)


def log_of_zero(output: Tensor) -> Tensor:
    return -torch.log(output.softmax(-1) * 0).mean()


def ignored(on: bool) -> Tensor:
    """Labels; at the faulty step every one of them is to be ignored: the mean over nothing is NaN."""
    return torch.full((BATCH,), -100) if on else torch.arange(BATCH) % CLASSES


class Squares(nn.Module):
    """A criterion of the user's."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()


def target(on: bool) -> Tensor:
    return torch.full((BATCH, CLASSES), math.nan if on else 0.0)


def criterion() -> Training:
    judge = nn.CrossEntropyLoss()
    return Training(plain(), loss=lambda output, on: judge(output, ignored(on)))


def watched_criterion() -> Training:
    judge = Squares()
    return Training(
        plain(),
        loss=lambda output, on: judge(output, target(on)),
        watch={"criterion": judge},
    )


class OwnLoss(nn.Module):
    """A model that returns its loss beside its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fault = plain(), Fault(log_of_zero)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.body(inputs)
        loss = log_of_zero(logits) if self.fault.on else cross_entropy(logits, False)
        return loss, logits


def two_backwards(training: Training, loss: Tensor) -> None:
    """Two losses, each with a backward of its own."""
    loss.backward(retain_graph=True)
    (loss * 0.5).backward()


def scaled(training: Training, loss: Tensor) -> None:
    (loss * 256.0).backward()


LOSSES = {
    "a log of zero": at_fault(log_of_zero),
    "zero times a log of zero": at_fault(lambda out: (out * 0 * torch.log(out * 0)).mean()),
    "a negative infinity": at_fault(lambda out: torch.log((out * 0).square().mean())),
    "an overflow of exp": at_fault(lambda out: (out.abs() + 100).exp().mean()),
    "a weighted mean over nothing": at_fault(lambda out: (out * 0).sum() / (out * 0).sum()),
    "a divergence from nothing": at_fault(
        lambda out: functional.kl_div(
            (out.softmax(-1) * 0).log(), out.softmax(-1).detach(), reduction="batchmean"
        )
    ),
    "an infinity without effect": at_fault(lambda out: cross_entropy(out, True) + math.inf),
    "a negative infinity in float64": at_fault(
        lambda out: torch.log((out.double() * 0).square().mean())
    ),
    "an infinity in bfloat16": at_fault(lambda out: (out.abs() + 1e3).bfloat16().exp().mean()),
    "a loss for each sample": at_fault(
        lambda out: -torch.log(out.softmax(-1) * 0)[:, 0],
        backward=lambda training, loss: loss.backward(torch.ones_like(loss)),
    ),
    "by a call of autograd's own": at_fault(
        log_of_zero, backward=lambda training, loss: torch.autograd.backward([loss])
    ),
    "with losses logged": at_fault(log_of_zero, logs=True),
    "in the second of four micro-batches": at_fault(log_of_zero, micro_batches=4),
    "with two backward passes": at_fault(log_of_zero, backward=two_backwards),
    "with a scaled loss": at_fault(log_of_zero, backward=scaled),
    "with a sample at every step": at_fault(log_of_zero, watch={"interval": 1}),
    "with no sample near": at_fault(log_of_zero, watch={"interval": 1000}),
    "in a criterion module": Case(criterion, LOSS),
    "in a criterion that is watched": Case(watched_criterion, LOSS),
    "of a target that is NaN": Case(
        lambda: Training(
            plain(), loss=lambda out, on: functional.mse_loss(out, target(on), reduction="mean")
        ),
        LOSS,
    ),
    "that the model returns": Case(
        lambda: Training(OwnLoss(), loss=lambda output, on: output[0]), LOSS
    ),
}


@table(LOSSES)
def test_loss(check: Any, case: Case, step: int) -> None:
    check(case, step)


# The optimizer's step. All that came before it is finite.


def rate(value: float, key: str = "lr") -> Callable[[Training], None]:
    def before(training: Training) -> None:
        for group in training.optimizer.param_groups:
            group[key] = value

    return before


def state(key: str, value: float, name: str = "lower.weight") -> Callable[[Training], None]:
    """One value of the optimizer's state of one parameter."""

    def before(training: Training) -> None:
        training.optimizer.state[training.model.get_parameter(name)][key].view(-1)[1] = value

    return before


class Own(torch.optim.Optimizer):
    """An optimizer of the user's that divides by zero at the faulty step, for one parameter."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.01, "divisor": 1.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for index, parameter in enumerate(group["params"]):
                by = group["divisor"] if index == 2 else 1.0
                parameter -= group["lr"] * parameter.grad / by


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def fused(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, fused=True)


class Spare(nn.Module):
    """A layer whose gradients are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.spare = plain(), nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> Any:
        return self.body(inputs) + self.spare(inputs) * 0


def broken(
    before: Callable[[Training], None],
    make: Callable[[Any], torch.optim.Optimizer] | None = None,
    layer: str | None = None,
    parameter: str | None = None,
    spread: tuple[str, ...] | None = None,
    model: Callable[[], nn.Module] = plain,
    steps: tuple[int, ...] = (0, 7, 41),
    **more: Any,
) -> Case:
    def build() -> Training:
        training = Training(model(), before=before, **more)
        if make is not None:
            training.make_optimizer = make
        return training

    return Case(build, Found("update", layer, parameter, spread=spread), steps)


ONE = {"layer": "lower", "parameter": "lower.weight", "spread": ()}
FILLED = {**ONE, "steps": (7, 41)}  # an optimizer has no state before its first step
UPDATES = {
    "a rate that is NaN": broken(rate(math.nan)),
    "a rate that is infinite": broken(rate(math.inf)),
    "a rate beyond all numbers": broken(
        rate(1e38), loss=lambda output, on: output.square().mean() * (1e4 if on else 1.0)
    ),
    "a rate that is NaN, with Adam": broken(rate(math.nan), adam),
    "a rate that is NaN, fused": broken(rate(math.nan), fused),
    "a decay that overflows": broken(rate(1e42, "weight_decay"), adamw),
    "an optimizer that divides by zero": broken(rate(0.0, "divisor"), Own, **ONE),
    "momentum that is NaN": broken(state("momentum_buffer", math.nan), momentum, **FILLED),
    "momentum that is infinite": broken(state("momentum_buffer", math.inf), momentum, **FILLED),
    "a first moment that is NaN": broken(state("exp_avg", math.nan), adam, **FILLED),
    "a second moment that is negative": broken(state("exp_avg_sq", -1.0), adam, **FILLED),
    # One bad value in the momentum of a large weight leaves the same trace as one in its gradient: it is
    # called "backward", see `Optimizers.spoiled_unseen`.
    "a big weight divided by zero": broken(
        rate(0.0, "divisor"), Own, "big", "big.weight", (), wide
    ),
    "a rate that is NaN in a big model": broken(rate(math.nan), model=wide),
    "a rate that is NaN in a bfloat16 model": broken(
        rate(math.nan), model=lambda: plain().bfloat16(), batch=lambda on: features(on).bfloat16()
    ),
    "a second moment of zero without eps": broken(
        rate(0.0, "eps"), adam, "spare", spread=(), model=Spare
    ),
    "an eps that float16 takes for zero": broken(
        rate(1e-8, "eps"),
        lambda parameters: torch.optim.Adam(parameters, lr=0.01, eps=1e-3),
        model=lambda: Spare().half(),
        batch=lambda on: features(on).half(),
    ),
    "with a sample at every step": broken(rate(math.nan), watch={"interval": 1}),
    "with no sample near": broken(rate(math.nan), watch={"interval": 1000}),
    "with losses logged": broken(rate(math.nan), logs=True),
    "after four micro-batches": broken(rate(math.nan), micro_batches=4),
}


@table(UPDATES)
def test_update(check: Any, case: Case, step: int) -> None:
    check(case, step)
