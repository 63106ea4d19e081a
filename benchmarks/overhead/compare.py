"""One training with a tool beside its twin without, in a process of their own."""

import copy
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import torch

from benchmarks.overhead import footprint
from benchmarks.overhead.loops import CALIBRATION, Pairs, interleave, joined, steps_for
from benchmarks.overhead.models import Training, build
from benchmarks.overhead.peers import TOOLS

T = TypeVar("T")
CONTROL = 0.1
"""Share of the watched time for which the twins run beside each other before the tool comes."""
LEAST_CONTROL = 8
"""Pairs of blocks of that at least, of all processes together."""
HEAP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}
"""Lets glibc keep what was freed. By default it gives some of it back at each step where the heap happens to end in it,
and the next one waits for thousands of page faults: up to 5 % of a step of ResNet-18, for one twin and not for the
other, as chance will have it."""
WARM = 3
"""Steps of each of the twins that are made anew before the first block that counts."""
PATIENCE_S = 10
"""How long a process has to put away its files once it is to end."""


class Shape(NamedTuple):
    """How a comparison is cut up."""

    steps: int
    """Of a block."""
    pairs: int
    """Of blocks, in each part."""
    settle: int = 0
    """Steps before each block that do not count."""


@dataclass(frozen=True)
class Job:
    """What to compare, and how long."""

    model: str
    tool: str
    steps: int
    """Watched steps at least."""
    seconds: float
    """Watched seconds at least."""
    pairs: int
    """Pairs of blocks at least."""
    block: float = 0.08
    """Seconds of a block, about. The shorter, the less of what slows the machine meets only one of the twins."""
    multiple: int = 1
    """What the steps of a block are a multiple of."""
    settle: float = 0.0
    """Seconds before each block that do not count, about."""
    warm_steps: int = 0
    """Steps with the tool before the first block that counts."""
    parts: int = 1
    """Of how many parts it is made. For each the twins are made anew, elsewhere in memory: what two copies of the same
    work differ by for as long as they live shows in what the parts differ by."""
    processes: int = 1
    """In how many processes it is measured, for as long in each: see `processes.measured`."""
    shape: Shape | None = None
    """What another process has found out for the same; else it is found out here."""


@dataclass(frozen=True)
class Outcome:
    """What was measured. Memory and disk in bytes, times in seconds."""

    job: Job
    shape: Shape
    control: Pairs
    """The same two copies before the tool came: what the copies themselves differ by."""
    wall: Pairs
    cpu: Pairs
    """Of the training process alone."""
    cpu_steps: float
    """Processor time of all processes beyond that of the training, per 1,000 steps."""
    cpu_ends: float
    """Processor time of all processes to start and to close, imports included."""
    start: float
    """How long it took to import, begin and attach."""
    close: float
    disk: int
    """Per 1,000 steps, without what was there before the first."""
    memory: int
    """How much the process's peak rose until the end of the first part."""
    children: int
    """Memory of the processes that the tool started."""
    samples: int | None
    """How many steps' layer statistics were recorded, where that can be told."""
    reported: float | None
    """The share of the time that the tool itself says it took."""


def compare(job: Job) -> Outcome:
    """Measure in this process; `isolated(compare, job)` gives it one of its own."""
    plain, watched = build(job.model), build(job.model)
    control = _control(job, plain, watched)
    shape = job.shape or _shape(job, control)
    places = Places()

    def watched_step() -> None:
        tool.after_step(watched.step())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peak = footprint.peak_resident()
        before = footprint.own_cpu() + footprint.children_cpu()
        tool = TOOLS[job.tool]()
        start = _timed(lambda: tool.start(watched, folder))
        children_cpu, disk = footprint.children_cpu(), footprint.on_disk(folder)
        ends = footprint.own_cpu() + children_cpu - before
        parts: list[tuple[Pairs, Pairs]] = []
        for part in range(job.parts):
            if part:
                plain, watched = places.elsewhere(plain), places.elsewhere(watched)
                tool.move(watched)
            for _ in range(max(job.warm_steps, WARM if part else 0)):
                watched_step()
                with tool.paused():
                    plain.step()
            tell = _teller(job, part)
            steps, pairs, settle = shape
            parts.append(
                interleave(plain.step, watched_step, steps, pairs, tool.paused, tell, settle)
            )
            if not part:  # later the copies take memory, too
                memory = footprint.peak_resident() - peak
        wall, cpu = (joined(alike) for alike in zip(*parts, strict=True))
        children_cpu = footprint.children_cpu() - children_cpu
        before = footprint.own_cpu() + footprint.children_cpu()
        children = footprint.children_resident()
        close = _timed(tool.close)
        tool.stop()
        ends += footprint.own_cpu() + footprint.children_cpu() - before
        scale = 1_000 / (len(wall) * (shape.steps + shape.settle))
        recorded = tool.samples(folder)
        return Outcome(
            job=job,
            shape=shape,
            control=control,
            wall=wall,
            cpu=cpu,
            cpu_steps=1_000 * statistics.fmean(cpu.differences) + scale * children_cpu,
            cpu_ends=ends,
            start=start,
            close=close,
            disk=round((footprint.on_disk(folder) - disk) * scale),
            memory=memory,
            children=children,
            samples=len(recorded) or None,
            reported=tool.reported(folder),
        )


def _control(job: Job, plain: Training, watched: Training) -> Pairs:
    """Wall times of the twins without any tool, in blocks as long as those that follow, if not whole intervals."""
    for training in (plain, watched):  # creates the optimizers' state, fills caches
        for _ in range(3):
            training.step()
    steps = steps_for(plain.step, job.block)
    for _ in range(CALIBRATION):  # the twins stay in step
        watched.step()
    least = -(-LEAST_CONTROL // job.processes)
    pairs = max(least, round(CONTROL * job.seconds / job.block) if job.block else 0)
    paused = TOOLS["nothing"]().paused
    wall, _ = interleave(plain.step, watched.step, steps, pairs, paused, lambda done, of: None)
    return wall


def _shape(job: Job, control: Pairs) -> Shape:
    steps = -(-control.steps // job.multiple) * job.multiple
    seconds = control.merged(1).plain[0]
    needed = max(job.steps, job.seconds / seconds)
    pairs = max(-(-job.pairs // job.parts), -(-int(needed) // (steps * job.parts)))
    return Shape(steps, pairs, round(job.settle / seconds))


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


class Places:
    """Copies trainings to other places in memory."""

    def __init__(self) -> None:
        self._draw = random.Random(0)
        self._kept: list[torch.Tensor] = []

    def elsewhere(self, training: Training) -> Training:
        """One that is as far, and goes on alike."""
        for _ in range(8):
            self._kept.append(torch.empty(self._draw.randrange(1 << 16)))
        return copy.deepcopy(training)


def _teller(job: Job, part: int) -> Callable[[int, int], None]:
    """Says on standard error how far a comparison is, about every ten seconds."""
    last = time.monotonic()
    where = f" of part {part + 1} of {job.parts}" if job.parts > 1 else ""

    def tell(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last > 10 and done < of:
            last = time.monotonic()
            pairs = f"{done} of {of} pairs{where}"
            print(f"  {job.model}, {job.tool}: {pairs}", file=sys.stderr, flush=True)

    return tell


def isolated(function: Callable[..., T], *arguments: Any) -> T:
    """Call `function` in a fresh process: nothing that was attached, imported or allocated before is in it, and its
    heap only grows (`HEAP`).

    Raises what the function raises, and RuntimeError where the process dies. It ends with this one, however that ends.
    """
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(writer, function, arguments))
    with patch.dict(os.environ, HEAP):
        process.start()
    writer.close()
    try:
        answer = reader.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__name__} died with code {process.exitcode}") from None
    except KeyboardInterrupt:
        process.join(PATIENCE_S)  # a terminal interrupts both
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGINT)
        raise
    process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(writer: Any, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        writer.send(function(*arguments))
    except Exception as error:
        import traceback

        writer.send(RuntimeError("".join(traceback.format_exception(error))))


def _end_with_parent() -> None:
    """Interrupt this process when its parent is gone. Until then the thread waits for a pipe, which costs nothing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    time.sleep(PATIENCE_S)
    os._exit(1)
