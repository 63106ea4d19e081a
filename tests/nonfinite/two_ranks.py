"""One of two processes that train together: `two_ranks.py RANK FOLDER`. Faults are on rank 1 only."""

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from nonfinite.bench import Fault, Training, cross_entropy, features, run, spoil, spoil_gradient
from nonfinite.models import mlp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import trainvitals.hooks as tv

STEP = 7


def bad_batch(on: bool) -> Tensor:
    return features(on) * (math.nan if on else 1.0)


def bad_loss(output: Tensor, on: bool) -> Tensor:
    return cross_entropy(output, on) * (math.nan if on else 1.0)


def both(middle: nn.Module) -> Training:
    return Training(DistributedDataParallel(mlp(middle)))


SCENARIOS: dict[str, Callable[[], Training]] = {
    "input": lambda: Training(DistributedDataParallel(mlp(nn.Identity())), bad_batch),
    "forward": lambda: both(Fault(spoil)),
    "backward": lambda: both(Fault(spoil_gradient)),
    "loss": lambda: Training(DistributedDataParallel(mlp(nn.Identity())), loss=bad_loss),
}


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    truths = {}
    for name, build in SCENARIOS.items():
        os.environ["TRAINVITALS_RUN_ID"] = name
        torch.manual_seed(rank)
        training = build() if rank == 1 else both(nn.Identity())
        truths[name] = run(training, STEP)
        tv.finish()
    (folder / f"truths{rank}.json").write_text(json.dumps(truths))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
