"""Ranks that look at sharded parameters together: who takes part, which steps, and the one reduction in each."""

import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from trainvitals.hooks.pace import Pace
from trainvitals.hooks.registry import Parameter

Floats = npt.NDArray[np.float64]
_NEVER = 1 << 53


def is_sharded(tensor: Tensor) -> bool:
    """Whether ranks hold parts of this tensor (a DTensor, as FSDP2 makes them)."""
    return getattr(tensor, "_local_tensor", None) is not None


def counts_here(tensor: Tensor) -> bool:
    """Whether what lies on this rank is to be added up: of copies only the first one is."""
    if not is_sharded(tensor):
        return dist.get_rank() == 0
    held: Any = tensor
    place = held.device_mesh.get_coordinate()
    if place is None or any(kind.is_partial() for kind in held.placements):
        return False
    copies = [at for at, kind in zip(place, held.placements, strict=True) if kind.is_replicate()]
    return not any(copies)


class Plan(NamedTuple):
    """The next steps that all ranks look at."""

    sample: int
    glance: int
    histograms: bool
    """Whether that sample has histograms."""


class AgreedPace(Pace):
    """Looks at the steps of rank 0's last plan that all ranks know of; what stands out counts for the next plan."""

    def __init__(self) -> None:
        super().__init__()
        self.agreed = Plan(0, 0, True)

    def resume(self, asked: Pace, step: int) -> None:
        """All ranks look at the step at which watching goes on."""
        super().resume(asked, step)
        self.agreed = Plan(step, step, True)

    @property
    def next_step(self) -> int:
        """The next step that is looked at in any way."""
        return min(self.agreed.sample, self.agreed.glance)

    def is_sample(self, step: int) -> bool:
        """Whether the statistics of all parameters are taken in this step."""
        return step >= self.agreed.sample

    @property
    def wanted(self) -> tuple[int, int]:
        """The next sample and the next glance that this rank would choose."""
        return self._next_sample, self._next_glance

    def go_alone(self, step: int, first: bool) -> None:
        """The ranks do not look together any more: the first one looks at what is its own, the others at nothing."""
        sample, glance = self.wanted if first else (_NEVER, _NEVER)
        self.agreed = Plan(max(sample, step + 1), max(glance, step + 1), True)


class Ensemble:
    """Meets at the end of steps that are looked at, after the optimizer's step, if every rank watches.

    A rank that is alone in watching, or has stopped, must not leave the others waiting in a collective. Sharded ranks
    are never more than a part of a step apart, as they need each other's shards; so what a rank has left in the
    process group's store before a step, all others see at the end of that step.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter]) -> None:
        """`name`: of the meeting, the same on all ranks and never used before.

        `parameters`: those that statistics are wanted of; the same on all ranks.
        """
        self.parameters = list(parameters)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        layout = ";".join(f"{p.name}{tuple(p.tensor.shape)}" for p in self.parameters)
        self._key = f"trainvitals/{name}"
        self._members = f"{self._key}/{zlib.crc32(layout.encode())}"
        self._store: Any = dist.distributed_c10d._get_default_store()
        self._store.add(self._members, 1)
        self._together: bool | None = None

    def meets(self) -> bool:
        """Whether all ranks look at the step that ends together. Asks the store alone; never waits for a rank."""
        if not dist.is_initialized():
            self._together = False
        elif self._together is None:
            whole = int(self._store.add(self._members, 0)) == self.world
            answer = self._store.compare_set(f"{self._key}/all", "", "yes" if whole else "no")
            self._together = answer == b"yes"
        elif self._together:
            self._together = not self._store.check([f"{self._key}/left"])
        return self._together

    def leave(self) -> None:
        """This rank meets the others no more."""
        if self._together is not False and dist.is_initialized():
            with suppress(RuntimeError):  # whoever keeps the store has ended already
                self._store.set(f"{self._key}/left", "1")
        self._together = False

    def reduce(self, sums: Floats, largest: Floats) -> tuple[Floats, Floats]:
        """Sums and maxima over all ranks, in one go. Every rank calls this with the same shapes, or none does."""
        device = _device()
        added = torch.from_numpy(sums).to(device)
        highest = torch.from_numpy(largest).to(device)
        works = [
            dist.all_reduce(added, dist.ReduceOp.SUM, async_op=True),
            dist.all_reduce(highest, dist.ReduceOp.MAX, async_op=True),
        ]
        for work in works:
            work.wait()
        return added.cpu().numpy(), highest.cpu().numpy()


def _device() -> torch.device:
    """Where the process group's tensors lie: the CPU where it serves that."""
    kinds: list[torch.device] = getattr(dist.group.WORLD, "_device_types", [])
    on_host = not kinds or any(kind.type == "cpu" for kind in kinds)
    return torch.device("cpu") if on_host else kinds[0]
