"""The four lines of the benchmark: which comparisons each needs, and how long they take."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.overhead.compare import Job, Outcome, compare, isolated
from benchmarks.overhead.counting import Device, Growth, Operations, growth, on_cuda, operations
from benchmarks.overhead.estimates import estimate, over_all
from benchmarks.overhead.peers import INTERVAL, is_missing
from benchmarks.overhead.processes import measured


@dataclass(frozen=True)
class Length:
    """How long to measure: steps, seconds and pairs are lower bounds of each comparison."""

    default_steps: int
    default_seconds: float
    full_pairs: int
    full_seconds: float
    alone_seconds: float
    block: float
    full_block: float
    """The same for full statistics: some steps more, so that whole intervals do not make twice of it."""
    short_block: float
    """The same for full statistics of models of `SHORT` steps: longer than what a tool leaves to its threads and
    processes at the end of one, and as many seconds before each do not count."""
    growth_steps: int
    parts: int
    """For how many parts of the first and the third line the twins are made anew."""
    processes: int
    """In how many processes models of `SHORT` steps are measured instead."""
    repeats: int = 1
    """How many times as long all of it takes, in as many times the processes: errors shrink by its root."""


FULL = Length(1_000, 120, 9, 10, 60, 0.08, 0.1, 0.5, 10_000, 12, 12)
QUICK = Length(60, 3, 3, 2, 4, 0.08, 0.1, 0.5, 2_000, 3, 3)
TINY = Length(8, 0, 3, 0, 0, 0.001, 0.001, 0.001, 50, 2, 1)
"""For the harness's own test: says nothing about cost."""

SHORT = ("mlp",)
"""Models whose steps are so short that one process differs from another by what there is to measure."""
LEAST_SECONDS = 3.0
"""Watched seconds of each of several processes, at least: in the first one a run looks at more than later."""
LARGE_PAIRS = 12
"""Larger pairs that blocks are gathered into: those of a part or a process, where there are as many. Each spans samples
and steps without, and what slows the machine for some seconds is in one of them."""
PEERS = ("plain", "wandb", "tensorboard")


@dataclass(frozen=True)
class Measured:
    """All that one run of the benchmark found; lines without models are empty."""

    default: list[Outcome]
    full: list[Outcome]
    alone: list[Outcome]
    operations: dict[str, Operations]
    growth: Growth
    device: dict[str, Device | str]
    skipped: list[str]


def measure(models: Sequence[str], length: Length) -> Measured:
    """Everything for these models, one process after the other; says on standard error what it is at."""
    peers = [name for name in PEERS if not is_missing(name)]
    skipped = [
        f"{name}: {is_missing(name)} is not installed (pip install '.[bench]')"
        for name in PEERS
        if is_missing(name)
    ]
    return Measured(
        default=list(_compared(default_jobs(models, length))),
        full=list(_compared(full_jobs(models, ["ours", *peers], length))),
        alone=list(_compared(alone_jobs(models, length))),
        operations={name: _isolated("counting operations", operations, name) for name in models},
        growth=_isolated("memory over a long training", growth, "mlp", length.growth_steps),
        device={name: _isolated("CUDA", on_cuda, name) for name in models},
        skipped=skipped,
    )


def default_jobs(models: Iterable[str], length: Length) -> Iterator[Job]:
    """Line 1: `tv.watch(model, optimizer)` from a fresh run on, and with logging for the MLP."""
    for model in models:
        for tool in ("default", "default + log") if model == "mlp" else ("default",):
            yield _shared(
                length,
                Job(
                    model,
                    tool,
                    length.default_steps,
                    length.default_seconds,
                    7,
                    block=length.block,
                    parts=length.parts,
                ),
            )


def full_jobs(models: Iterable[str], tools: Sequence[str], length: Length) -> Iterator[Job]:
    """Line 2: full statistics every ten steps; whole tens in each block, so that all hold as many samples."""
    for model in models:
        short = model in SHORT
        for tool in tools:
            yield _shared(
                length,
                Job(
                    model,
                    tool,
                    0,
                    length.full_seconds,
                    length.full_pairs,
                    block=length.short_block if short else length.full_block,
                    multiple=INTERVAL,
                    settle=length.short_block if short else 0.0,
                ),
            )


def alone_jobs(models: Iterable[str], length: Length) -> Iterator[Job]:
    """Line 3: no sample but the first; only what watches every step for NaN and infinity is left."""
    for model in models:
        yield _shared(
            length,
            Job(
                model,
                "non-finite",
                0,
                length.alone_seconds,
                7,
                block=length.block,
                warm_steps=5,
                parts=length.parts,
            ),
        )


def _shared(length: Length, job: Job) -> Job:
    """The same, as often as it is repeated; where steps are short, shared out between processes. Each process takes all
    steps that it needs."""
    count = length.processes if job.model in SHORT else 1
    if count > 1:
        seconds, pairs = max(job.seconds / count, LEAST_SECONDS), -(-job.pairs // count)
        job = replace(job, seconds=seconds, pairs=pairs, parts=1)
    return replace(job, processes=count * length.repeats)


def _compared(jobs: Iterable[Job]) -> Iterator[Outcome]:
    for job in jobs:
        found = measured(job, lambda one: _isolated(one.tool, compare, one))
        total = estimate(over_all, found.wall.merged(LARGE_PAIRS))
        added = f"{total.value:+.2%} ± {total.error:.2%}"
        print(f"{job.model}: {job.tool} adds {added}", file=sys.stderr, flush=True)
        yield found


def _isolated(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    first = arguments[0]
    print(
        f"{first.model if isinstance(first, Job) else first}: {what}", file=sys.stderr, flush=True
    )
    return isolated(function, *arguments)
