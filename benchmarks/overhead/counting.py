"""What is counted and not timed: hooks, operations, waits for the device, memory."""

import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.overhead import footprint
from benchmarks.overhead.models import Training, build
from benchmarks.overhead.peers import INTERVAL, TOOLS, Ours, Tool

STEPS = 31
"""Counted steps: four of them are sampled at an interval of 10."""
COPIES = ("aten._to_copy", "aten.copy_")
READ = "aten._local_scalar_dense"


@dataclass(frozen=True)
class Counts:
    """Of one step: what watching adds to the same step without it."""

    reads: int
    """`aten::_local_scalar_dense`: each `.item()`, which on a GPU waits for the device."""
    copies: int
    operations: int
    """All torch operations, those two included."""


@dataclass(frozen=True)
class Operations:
    """Counts of one model at an interval of 10. A step's kind is told from what was recorded of it."""

    idle: list[Counts]
    """Steps without a sample, from the second sample on."""
    sampled: list[Counts]
    hooks: list[str]
    """Module hooks that were met on steps without a sample; none is right."""
    checked: int
    """Steps without a sample on which hooks were looked for."""


class OperationCounter(TorchDispatchMode):
    """Counts operations by name while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def attached(model: nn.Module) -> list[str]:
    """Names of all hooks that a call of `model` would run: global ones and those on its modules."""
    place = torch.nn.modules.module
    found = [
        f"{len(hooks)} in torch.nn.modules.module.{name}"
        for name, hooks in vars(place).items()
        if name.startswith("_global_") and name.endswith("_hooks") and hooks
    ]
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    for name, module in model.named_modules():
        for kind in kinds:
            hooks = getattr(module, f"_{kind}_hooks")
            if hooks:
                found.append(f"{len(hooks)} {kind} hooks on {name!r}")
    return found


def operations(model: str) -> Operations:
    """Count what an interval of 10 adds to each kind of step."""
    tool, training = TOOLS["ours"](), build(model)
    for _ in range(3):
        training.step()
    usual = _counted(training)
    with tempfile.TemporaryDirectory() as name:
        tool.start(training, Path(name))
        counts: list[Counter[str]] = []
        hooks: list[list[str]] = []
        for _ in range(STEPS):
            hooks.append([])
            counts.append(_counted(training, hooks[-1]))
        tool.close()
        sampled = set(tool.samples(Path(name)))
    added = [_added(counted, usual) for counted in counts]
    idle = [step for step in range(11, STEPS) if step not in sampled]
    return Operations(
        idle=[added[step] for step in idle],
        sampled=[added[step] for step in sorted(sampled) if step > 0],
        hooks=sorted({hook for step in idle for hook in hooks[step]}),
        checked=len(idle),
    )


def _counted(training: Training, hooks: list[str] | None = None) -> Counter[str]:
    with OperationCounter() as counter:
        loss = training.forward()
        if hooks is not None:
            hooks += attached(training.model)
        training.update(loss)
    return counter.counts


def _added(counted: Counter[str], usual: Counter[str]) -> Counts:
    return Counts(
        reads=counted[READ] - usual[READ],
        copies=sum(counted[name] - usual[name] for name in COPIES),
        operations=counted.total() - usual.total(),
    )


@dataclass(frozen=True)
class Growth:
    """Bytes by which a process grew over `steps` steps, without and with the default settings."""

    steps: int
    plain: int
    watched: int


def growth(model: str, steps: int) -> Growth:
    """Memory over a long training, each half after a start of a tenth of its length."""
    grown = []
    for name in ("nothing", "default"):
        training, tool = build(model), TOOLS[name]()
        with tempfile.TemporaryDirectory() as folder:
            tool.start(training, Path(folder))
            _run(training, steps // 10)
            before = footprint.resident()
            _run(training, steps)
            grown.append(footprint.resident() - before)
            tool.close()
    return Growth(steps, *grown)


def _run(training: Training, steps: int) -> None:
    for _ in range(steps):
        training.step()


@dataclass(frozen=True)
class Device:
    """What watching does on a GPU."""

    idle: str
    """The first wait for the device on a step without a sample; "" where there is none."""
    checked: int
    waits: int
    """The most waits on a sampled step, by torch's own warnings."""
    memory: int
    """Bytes by which the peak of device memory rises."""


def on_cuda(model: str) -> Device | str:
    """Waits and memory on the GPU; a line why not where there is none."""
    if not torch.cuda.is_available():
        return "no CUDA device here: waits and device memory were not measured"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peak, training = _peak(model, Tool(), folder)
        if itself := _wait(training, "error")[1]:
            return f"the training waits for the device by itself: {itself}"
        del training
        tool = Ours(interval=INTERVAL, strict=True)  # else it would keep a wait's error to itself
        watched_peak, training = _peak(model, tool, folder)
        waits, idle, checked = 0, "", 0
        for step in range(12, 41):
            if step % INTERVAL == 0:
                waits = max(waits, _wait(training, "warn")[0])
            else:
                idle = idle or _wait(training, "error")[1]
                checked += 1
        tool.close()
    return Device(idle, checked, waits, watched_peak - peak)


def _wait(training: Training, mode: str) -> tuple[int, str]:
    """One step under that debug mode: how often torch warned of a wait, and the error that it raised."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            training.step()
    except RuntimeError as error:
        return 0, str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught), ""


def _peak(model: str, tool: Tool, folder: Path) -> tuple[int, Training]:
    """The most device memory that the first 12 steps took, and the training as it is then."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    training = build(model, "cuda")
    tool.start(training, folder)
    _run(training, 12)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, training
