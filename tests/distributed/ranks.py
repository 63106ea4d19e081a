"""Two ranks that train together: `ranks.py spawn SCENARIO|all`, or `torchrun ranks.py torchrun`."""

import math
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import trainvitals.hooks as tv

STEPS = 6
FAULT = 3
"""Step at which rank 1 meets something non-finite."""


class Spoil(torch.autograd.Function):
    """Passes values on, and NaN back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * math.nan


class Fault(nn.Module):
    """Passes on its input, and makes NaN when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = ""

    def forward(self, values: Tensor) -> Tensor:
        if self.now == "backward":
            return Spoil.apply(values)
        return values * math.nan if self.now == "forward" else values


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Fault(), nn.Linear(8, 2))


def batch(rank: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * rank + step)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)


def train(
    model: nn.Module,
    rank: int,
    steps: int = STEPS,
    *,
    fault: str = "",
    watched: bool = True,
    alone: bool = False,
) -> list[float]:
    """Returns the losses. `alone`: without the other rank."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.05)
    if watched:
        tv.watch(model, sgd, strict=True)
    losses = []
    for step in range(steps):
        bad = fault if rank == 1 and step == FAULT else ""
        inputs, targets = batch(rank, step)
        if bad == "input":
            inputs[0, 0] = math.nan
        model.module[2].now = bad
        sgd.zero_grad()
        loss = nn.functional.mse_loss((model.module if alone else model)(inputs), targets)
        if bad == "loss":
            loss = loss * math.nan
        loss.backward()
        sgd.step()
        if watched:
            tv.log({"loss": loss})
        losses.append(loss.item())
    tv.detach()
    return losses


def faulty(fault: str) -> Callable[[int], object]:
    return lambda rank: train(DistributedDataParallel(net()), rank, fault=fault)


def twice(rank: int) -> None:
    """Two runs, one after the other, in the same processes."""
    for _ in range(2):
        tv.init()
        train(DistributedDataParallel(net()), rank, 2)
        tv.finish()


def unwatched(rank: int) -> None:
    """The same training without us, after one with us."""
    outcome = {}
    for watched in (True, False):
        model = DistributedDataParallel(net())
        losses = train(model, rank, watched=watched)
        weights = [parameter.tolist() for parameter in model.parameters()]
        outcome[watched] = repr((losses, weights))
    assert outcome[True] == outcome[False]


def uneven(rank: int) -> None:
    """Rank 1 has more to do after the last common step."""
    model = DistributedDataParallel(net())
    train(model, rank)
    if rank == 1:
        for step in range(20):
            inputs, targets = batch(rank, step)
            nn.functional.mse_loss(model.module(inputs), targets).backward()


def destroyed(rank: int) -> None:
    """The process group goes before the run does."""
    train(DistributedDataParallel(net()), rank)
    dist.destroy_process_group()


def killed(rank: int) -> None:
    """Rank 1 dies in mid-training; rank 0 goes on alone, and says so."""
    model = DistributedDataParallel(net())
    train(model, rank, 3)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    train(model, rank, 5, alone=True)
    tv.finish()
    os._exit(0)  # the group's threads would wait for rank 1


SCENARIOS: dict[str, Callable[[int], object]] = {
    **{fault: faulty(fault) for fault in ("forward", "input", "loss", "backward", "healthy")},
    "twice": twice,
    "unwatched": unwatched,
    "uneven": uneven,
    "destroyed": destroyed,
}


def meet(**more: Any) -> int:
    """Join the process group; returns the rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60), **more)
    return dist.get_rank()


def spawned(rank: int, name: str) -> None:
    """One scenario or all of them, each with a folder of its own."""
    meet(rank=rank, world_size=2)
    for scenario in SCENARIOS if name == "all" else [name]:
        os.environ["TRAINVITALS_DIR"] = str(Path(os.environ["FOLDER"]) / scenario)
        (SCENARIOS | {"killed": killed})[scenario](rank)
        tv.finish()
    if dist.is_initialized():
        dist.destroy_process_group()


def under_torchrun() -> None:
    """The run begins before there is a process group."""
    tv.init()
    rank = meet()
    train(DistributedDataParallel(net()), rank, fault="forward")
    tv.finish()
    dist.destroy_process_group()


def main() -> None:
    how, *names = sys.argv[1:]
    if how == "torchrun":
        under_torchrun()
        return
    context = torch.multiprocessing.spawn(spawned, tuple(names), nprocs=2, join=False)
    for process in context.processes:
        process.join(90)
    codes = [process.exitcode for process in context.processes]
    expected = [0, -signal.SIGKILL] if names == ["killed"] else [0, 0]
    sys.exit(0 if codes == expected else f"ranks ended with {codes}")


if __name__ == "__main__":
    main()
