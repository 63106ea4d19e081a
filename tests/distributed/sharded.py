"""A training with FSDP2: `sharded.py` on two ranks, or `train(None)` in one process."""

import json
import math
import os
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

import trainvitals.hooks as tv

STEPS = 9
BATCH = 8
FAULT = 6
MOST = 0.5
"""Norm to which gradients are clipped."""


def net() -> nn.Sequential:
    """Sizes that two ranks cannot halve."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 1))
    for parameter in model[3].parameters():
        parameter.requires_grad_(parameter.dim() > 1)
    return model


def train(
    mesh: DeviceMesh | None,
    *,
    interval: int | None = 4,
    steps: int = STEPS,
    watched: bool = True,
    bad: int = -1,
) -> list[Tensor]:
    """Halves of the same batches on two ranks give the gradients of the whole ones in one process.

    `bad`: a step at which rank 1 gets a NaN. Returns this rank's part of the weights.
    """
    model = net()
    if mesh is not None:
        for layer in (model[0], model[3]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    adam = torch.optim.AdamW(model.parameters(), lr=0.01)
    if watched:
        tv.watch(model, adam, interval=interval, strict=True)
    generator = torch.Generator().manual_seed(5)
    for step in range(steps):
        inputs = torch.randn(BATCH, 5, generator=generator)
        targets = torch.randn(BATCH, 1, generator=generator)
        if mesh is not None:
            half = slice(dist.get_rank(), None, 2)
            inputs, targets = inputs[half], targets[half]
            if step == bad and dist.get_rank() == 1:
                inputs[0, 0] = math.nan
        adam.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), MOST)
        adam.step()
    tv.detach()
    return [] if mesh is None else [p.to_local().detach().clone() for p in model.parameters()]


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (2,))


class Collectives(TorchDispatchMode):
    """Counts them by name, also those that a DTensor calls for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:
            return NotImplemented
        if func.namespace in ("c10d", "_c10d_functional"):
            self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


def counted(rank: int) -> None:
    """Writes down the collectives with and without us; weights must be the same to the last bit."""
    counts, weights = [], []
    for watched in (True, False):
        with Collectives() as mode:
            weights.append(train(mesh(), watched=watched))
        counts.append(mode.counts)
    assert all(map(torch.equal, *weights))
    Path(os.environ["TRAINVITALS_DIR"], f"counts{rank}.json").write_text(json.dumps(counts))


def alone(rank: int) -> None:
    """Only rank 0 watches."""
    if rank:
        os.environ["TRAINVITALS_MODE"] = "disabled"
    train(mesh(), interval=1)
    os.environ["TRAINVITALS_MODE"] = "offline"


def leaving(rank: int) -> None:
    """Rank 1 stops watching in mid-training."""
    model = net()
    fully_shard(model, mesh=mesh())
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, sgd, interval=1, strict=True)
    for step in range(STEPS):
        if rank == 1 and step == 4:
            tv.finish()
        sgd.zero_grad()
        model(torch.ones(2, 5)).sum().backward()
        sgd.step()


def late(rank: int) -> None:
    """An optimizer that steps after the one that counts, with gradients that change from step to step."""
    model = net()
    fully_shard(model, mesh=mesh())
    first = torch.optim.SGD(model[0].parameters(), lr=0.01)
    second = torch.optim.SGD(model[1:].parameters(), lr=0.01)
    tv.watch(model, [first, second], interval=2, strict=True)
    for step in range(STEPS):
        model.zero_grad()
        (model(torch.full((2, 5), 1.0 + step)).sum() * step).backward()
        first.step()
        second.step()


def failing(rank: int) -> None:
    """Rank 1 cannot take its statistics at step 2."""
    from trainvitals.hooks import sharded

    taken = sharded.ShardSums.take_update

    def fail(self: sharded.ShardSums, optimizer: torch.optim.Optimizer) -> None:
        if rank == 1 and len(seen) == 2:
            seen.append(1)
            raise ValueError("for a test")
        seen.append(1)
        taken(self, optimizer)

    seen: list[int] = []
    sharded.ShardSums.take_update = fail  # type: ignore[method-assign]
    model = net()
    fully_shard(model, mesh=mesh())
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, sgd, interval=1)
    for _ in range(5):
        sgd.zero_grad()
        model(torch.ones(2, 5)).sum().backward()
        sgd.step()
    sharded.ShardSums.take_update = taken  # type: ignore[method-assign]


SCENARIOS = {
    "together": lambda rank: train(mesh()),
    "replicas": lambda rank: train(
        init_device_mesh("cpu", (2, 1), mesh_dim_names=("copy", "part"))
    ),
    "counted": counted,
    "broken": lambda rank: train(mesh(), bad=FAULT),
    "paced": lambda rank: train(mesh(), interval=None, steps=60),
    "alone": alone,
    "leaving": leaving,
    "failing": failing,
    "late": late,
}


def spawned(rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    for name, scenario in SCENARIOS.items():
        os.environ["TRAINVITALS_DIR"] = str(Path(os.environ["FOLDER"]) / name)
        scenario(rank)
        tv.finish()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(spawned, nprocs=2)
