"""Conditions that need several processes, and how they are run."""

import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional

from tests.zoo.architectures import small_net
from tests.zoo.harness import Condition, Run, run
from tests.zoo.session import STEPS, Role, Session

RANKS = 2


def _batches(zoo: Session, step: int) -> list[Any]:
    """The batches of all ranks at a step; the same on every rank."""
    generator = torch.Generator().manual_seed(100 + step)
    return [
        (
            torch.randn(6, 8, generator=generator),
            torch.randint(0, 4, (6,), generator=generator),
        )
        for _ in range(zoo.world)
    ]


def _train(zoo: Session, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """In the simple form one process computes the mean over all ranks' batches, the first rank's first."""
    for step in range(STEPS):
        batches = _batches(zoo, step)
        optimizer.zero_grad()
        for inputs, labels in batches if zoo.simple else [batches[zoo.rank]]:
            loss = functional.cross_entropy(model(inputs), labels)
            (loss / zoo.world if zoo.simple else loss).backward()
            zoo.loss(loss)
        zoo.step(optimizer)


def data_parallel(zoo: Session) -> None:
    model = small_net()
    wrapped = model if zoo.simple else nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    zoo.watch(wrapped, optimizer)
    _train(zoo, wrapped, optimizer)


def data_parallel_after_watch(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    wrapped = model if zoo.simple else nn.parallel.DistributedDataParallel(model)
    _train(zoo, wrapped, optimizer)


def fully_sharded(zoo: Session) -> None:
    model = small_net()
    if not zoo.simple:
        mesh = distributed.init_device_mesh("cpu", (zoo.world,))
        fully_shard(model[0], mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    _train(zoo, model, optimizer)


def run_ranks(folder: Path) -> Callable[[Condition], dict[Role, list[Run]]]:
    """All conditions of this module in all roles, by `RANKS` processes; in each list a run for each rank.

    The processes start once for all of them. A condition that brings them down fails alone, being the last.
    """
    failure: Exception | None = None
    try:
        multiprocessing.spawn(_work, (str(folder),), RANKS)
    except Exception as error:
        failure = error

    def runs_of(condition: Condition) -> dict[Role, list[Run]]:
        files = [folder / f"{condition.id}-{rank}.pickle" for rank in range(RANKS)]
        if failure is not None and not all(file.exists() for file in files):
            raise failure
        found = [pickle.loads(file.read_bytes()) for file in files]
        return {role: [runs[role] for runs in found] for role in Role}

    return runs_of


def _work(rank: int, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS))
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=30),
    )
    for condition in CONDITIONS:
        into = Path(folder) / f"{condition.id}-{rank}"
        runs = {role: run(condition, role, into, rank) for role in Role}
        distributed.barrier()
        into.with_suffix(".pickle").write_bytes(pickle.dumps(runs))
    distributed.destroy_process_group()


_SHARD = "of a sharded parameter the part that the first rank holds"
CONDITIONS = [
    Condition("DistributedDataParallel, before watch", data_parallel, slow=True, ranks=RANKS),
    Condition(
        "DistributedDataParallel, after watch", data_parallel_after_watch, slow=True, ranks=RANKS
    ),
    Condition(
        "FSDP2 (fully_shard)", fully_sharded, slow=True, ranks=RANKS, sharded=True, note=_SHARD
    ),
]
