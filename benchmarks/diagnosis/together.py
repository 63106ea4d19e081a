"""Trains a case on several ranks of this machine, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.training import run

SECONDS = 180.0
"""How long the ranks may take."""


def launch(case: Case, seed: int, folder: Path) -> None:
    """Train `case` and leave the spools of all ranks in `folder`. Raises RuntimeError where a rank fails."""
    command = [sys.executable, "-m", __name__, case.name, str(seed), str(folder)]
    ranks = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(case.ranks)
    ]
    try:
        said = [rank.communicate(timeout=SECONDS)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    failed = [text for rank, text in zip(ranks, said, strict=True) if rank.returncode]
    if failed:
        raise RuntimeError(f"a rank failed: {failed[0][-500:]}")


def train(case: Case, seed: int, folder: Path, rank: int) -> None:
    """One rank: the same model on all of them, and of each pass's samples every `case.ranks`-th."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=case.ranks
    )
    torch.manual_seed(seed)
    training = case.build()
    whole = training.order
    training.order = lambda n, generator: whole(n, generator)[rank :: case.ranks]
    training.model = DistributedDataParallel(training.model)
    for prepare in training.on_ranks:
        prepare(training, rank)
    run(training, folder, seed, case.interval)
    dist.barrier()  # who leaves first would take the meeting place away
    dist.destroy_process_group()


if __name__ == "__main__":
    from benchmarks.diagnosis.corpus import CASES

    name, number, place, which = sys.argv[1:]
    train(CASES[name], int(number), Path(place), int(which))
