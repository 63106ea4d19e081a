"""The training that the examples of the rules are made of: a plain loop over small pictures of digits, watched."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
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


def on_ranks(training: Callable[[int], None]) -> None:
    """The same on two ranks, each in a process of its own: `training` is given its rank."""
    torch.multiprocessing.spawn(_rank, (training, RUN), nprocs=2)


def _rank(rank: int, training: Callable[[int], None], run: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{run['dir']}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    torch.manual_seed(0)
    with tv.init(**run):
        training(rank)
    dist.barrier()
    dist.destroy_process_group()


def judged(training: Callable[[], None], folder: Path) -> list[Finding]:
    """What the rules find in a training."""
    torch.manual_seed(0)
    RUN["dir"] = folder
    with another_life():
        training()
    tv.finish()
    return diagnose(folder / ".trainvitals")
