"""The ranks of one launch: who this process is among them, and the ids that all of them agree on.

No rank waits for another one and none takes part in a collective: where the process group runs, the first rank
that asks leaves its proposal in the group's key-value store, and the others find it there. Before that, torchrun's
own process, the parent of all ranks of a machine, says what launch this is.
"""

import os
import secrets
import sys
import time
from hashlib import blake2s
from typing import Any, NamedTuple

_asked = 0
"""Runs that this process has started: ranks that start several agree on each of them."""


class Ids(NamedTuple):
    """Of a run and of this life of it."""

    run: str
    attempt: str
    agreed: bool
    """Whether all ranks have the same ones."""


def rank_and_world() -> tuple[int, int]:
    """Rank and number of ranks, from torch.distributed where it runs, else from the launcher's variables."""
    distributed = _distributed()
    if distributed is not None:
        return int(distributed.get_rank()), int(distributed.get_world_size())
    try:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 0, 1


def ids() -> Ids:
    """Ids for a new run of this process, the same on all ranks of the launch where they can agree."""
    global _asked
    _asked += 1
    now = time.time()
    world = rank_and_world()[1]
    alone = Ids(new_run_id(), _attempt_id(now), world == 1)
    if alone.agreed:
        return alone
    return _from_torchrun(_asked) or _from_store(alone, _asked) or _from_parent(alone, _asked)


def new_run_id() -> str:
    """Of this process alone: sorts by time; drawn from the system's source so that no seeded generator moves."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _attempt_id(now: float) -> str:
    """A later one sorts after an earlier one."""
    return f"{_universal(now)}.{int(now % 1 * 1000):03d}-{secrets.token_hex(2)}"


def _universal(moment: float) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(moment))


def _from_torchrun(number: int) -> Ids | None:
    """Ids made of what torchrun tells all its ranks; None elsewhere, and on several machines.

    A restart after a failure keeps the run, as the launcher lives on, and is a new attempt.
    """
    environment = os.environ
    one_machine = environment.get("LOCAL_WORLD_SIZE") == environment.get("WORLD_SIZE")
    if "TORCHELASTIC_RUN_ID" not in environment or not one_machine:
        return None
    parent = os.getppid()
    started = _start_of(parent)
    if started is None:
        return None
    launch = f"{environment['TORCHELASTIC_RUN_ID']} {os.uname().nodename} {parent} {started}"
    digest = blake2s(launch.encode(), digest_size=3).hexdigest()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(started))
    restart = environment.get("TORCHELASTIC_RESTART_COUNT", "0").zfill(3)
    more = f"-{number}" if number > 1 else ""
    return Ids(f"{stamp}-{digest}{more}", f"{_universal(started)}-{digest}.{restart}{more}", True)


def _from_store(proposed: Ids, number: int) -> Ids | None:
    """What the first rank that asked has left in the process group's store; None where there is none."""
    distributed = _distributed()
    if distributed is None:
        return None
    try:
        store = distributed.distributed_c10d._get_default_store()
        left = store.compare_set(f"trainvitals/{number}", "", f"{proposed.run} {proposed.attempt}")
        run, attempt = left.decode().split(" ")
    except (RuntimeError, ValueError, AttributeError, NotImplementedError):
        return None  # a group of another kind
    return Ids(run, attempt, True)


def _from_parent(alone: Ids, number: int) -> Ids:
    """An attempt that ranks with the same parent share; for the run they have to be told an id."""
    parent = os.getppid()
    started = _start_of(parent) or time.time()
    more = f"-{number}" if number > 1 else ""
    return alone._replace(attempt=f"{_universal(started)}-{parent}{more}")


def _start_of(process: int) -> int | None:
    """Unix time at which a process began, from the kernel's counters, the same for whoever asks."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/stat", encoding="utf-8") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith("btime"))
        return booted + ticks // os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _distributed() -> Any:
    """`torch.distributed` when its process group runs; never loads it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed
    return None
