"""A training with FSDP2: `sharded.py spawn` on two ranks, or `train(None)` in one process."""

import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

import trainvitals.hooks as tv

STEPS = 9
BATCH = 8
MOST = 0.5
"""Norm to which gradients are clipped."""


def net() -> nn.Sequential:
    """Sizes that two ranks cannot halve."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 1))
    for parameter in model[3].parameters():
        parameter.requires_grad_(parameter.dim() > 1)
    return model


def train(mesh: DeviceMesh | None, *, interval: int = 4, steps: int = STEPS) -> None:
    """Halves of the same batches on two ranks give the gradients of the whole ones in one process."""
    model = net()
    if mesh is not None:
        for layer in (model[0], model[3]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    adam = torch.optim.AdamW(model.parameters(), lr=0.01)
    tv.watch(model, adam, interval=interval, strict=True)
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        inputs = torch.randn(BATCH, 5, generator=generator)
        targets = torch.randn(BATCH, 1, generator=generator)
        if mesh is not None:
            half = slice(dist.get_rank(), None, 2)
            inputs, targets = inputs[half], targets[half]
        adam.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), MOST)
        adam.step()
    tv.detach()


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (2,))


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
    "paced": lambda rank: train(mesh(), interval=None, steps=60),
    "alone": alone,
    "leaving": leaving,
    "failing": failing,
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
