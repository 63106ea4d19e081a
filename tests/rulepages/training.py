"""The training that the examples of the rules are made of: a plain loop over small pictures of digits, watched."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv
from trainvitals.app.diagnose import diagnose
from trainvitals.app.rules.finding import Finding

BATCH = 64


@cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 pictures of 8 × 8 points, standardised, and their labels."""
    bunch = load_digits()
    points = torch.tensor(bunch.data, dtype=torch.float32)
    return (points - points.mean()) / points.std(), torch.tensor(bunch.target)


def mlp(*between: nn.Module, depth: int = 2, width: int = 32) -> nn.Sequential:
    """64 inputs, `depth` hidden layers with `between` (ReLU) behind each, 10 outputs."""
    model, inputs = nn.Sequential(), 64
    for index in range(1, depth + 1):
        model.add_module(f"fc{index}", nn.Linear(inputs, width))
        for place, module in enumerate(between or (nn.ReLU(),)):
            model.add_module(f"act{index}" + "b" * place, module)
        inputs = width
    model.add_module("head", nn.Linear(inputs, 10))
    return model


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    batch: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda step, x, y: (x, y),
    update: Callable[[Tensor], None] | None = None,
) -> None:
    """Train as anyone would. `batch` may change what a step gets, `update` what it does with its loss."""

    def ordinary(value: Tensor) -> None:
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    inputs, labels = digits()
    tv.watch(model, optimizer, interval=1, strict=True)
    for step in range(steps):
        chosen = torch.randint(len(inputs), (BATCH,))
        x, y = batch(step, inputs[chosen], labels[chosen])
        tv.batch(x, y)
        value = loss(model(x), y)
        (update or ordinary)(value)
        tv.log({"train/loss": value})


RUN: dict[str, Any] = {"project": "examples", "mode": "offline", "id": "example"}
"""What `tv.init` is given for the run that is judged."""


def another_life() -> tv.Run:
    """The run, from here on in a process life of its own, as after a crash."""
    return tv.init(**RUN)


def judged(training: Callable[[], None], folder: Path) -> list[Finding]:
    """What the rules find in a training."""
    torch.manual_seed(0)
    RUN["dir"] = folder
    with another_life():
        training()
    tv.finish()
    return diagnose(folder / ".trainvitals")
