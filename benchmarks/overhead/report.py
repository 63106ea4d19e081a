"""The tables that are printed, and everything behind them as JSON."""

import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from math import isfinite
from statistics import median
from typing import Any

import torch

from benchmarks.overhead.compare import Outcome
from benchmarks.overhead.counting import Counts, Device, Operations
from benchmarks.overhead.estimates import (
    Figure,
    estimate,
    middle,
    middle_seconds,
    of_watched,
    over_all,
    over_parts,
    quotient,
    verdict,
)
from benchmarks.overhead.footprint import MIB
from benchmarks.overhead.loops import Pairs, quartiles
from benchmarks.overhead.measure import LARGE_PAIRS, Measured
from benchmarks.overhead.peers import INTERVAL

LIMIT_DEFAULT = 0.015
LIMIT_ALONE = 0.005
LONG_STEP = 0.010
"""Seconds from which a step counts as long enough for `LIMIT_ALONE`."""
LIMITS_RATIO = {"plain": 1 / 3, "wandb": 1 / 5, "tensorboard": 1 / 5}
LIMIT_DEVICE = 64 * MIB
LIMIT_GROWTH = 4 * MIB
"""What an allocator moves by over a long run without any growth."""

Table = list[list[str]]


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "cuda": torch.cuda.is_available(),
    }


def text(measured: Measured) -> str:
    """All tables."""
    here = environment()
    lines = [
        f"Overhead of trainvitals: torch {here['torch']} with {here['threads']} threads on "
        f"{here['cores']} cores, Python {here['python']}.",
        "Shares are of the step time without any tool, measured in neighbouring blocks of the same process. ± is one",
        "standard error; what is within two of them of a limit is unclear.",
        "",
        "1. Default settings, from a fresh run on (limit: +1.5 %; reported within a third of measured)",
        *_aligned(default_table(measured.default)),
        "",
        f"2. Full statistics with histograms every {INTERVAL} steps, and the loss at every step",
        *_aligned(full_table(measured.full)),
        "",
        "3. The non-finite watch alone (limit: +0.5 % where a step takes 10 ms)",
        *_aligned(alone_table(measured)),
        "",
        f"4. What a step does more when watched, interval {INTERVAL} (operations of torch, on the CPU)",
        *_aligned(operations_table(measured.operations)),
        "",
        *_growth(measured),
        *(_device(name, found) for name, found in measured.device.items()),
        "",
        "Memory, disk, processor time of all processes, and closing",
        *_aligned(cost_table(measured.default + measured.full + measured.alone)),
        "",
        *(f"skipped: {line}" for line in measured.skipped),
    ]
    return "\n".join(lines).rstrip()


def as_json(measured: Measured) -> str:
    """Everything, each block's times included, and figures with their errors."""
    figures = {
        line: [_figures(found, large=line != "full") for found in outcomes]
        for line, outcomes in (
            ("default", measured.default),
            ("full", measured.full),
            ("alone", measured.alone),
        )
    }
    return json.dumps(
        {"environment": environment(), "figures": figures, **asdict(measured)}, indent=1
    )


def _figures(found: Outcome, large: bool) -> dict[str, Any]:
    """By name; medians are over large pairs where samples are in these only."""
    pairs = _large(found.wall) if large else found.wall
    figures = {
        "added": _added(found.wall),
        "added_cpu": _added(found.cpu),
        "median": estimate(middle, pairs) if large else _middle(middle, found),
        "median_seconds": estimate(middle_seconds, pairs)
        if large
        else _middle(middle_seconds, found),
        "twins": estimate(over_all, found.control),
    }
    named = {
        name: {"value": value, "error": error if isfinite(error) else None}
        for name, (value, error) in figures.items()
    }
    return {"model": found.job.model, "tool": found.job.tool, **named}


def _large(pairs: Pairs) -> Pairs:
    return pairs.merged(LARGE_PAIRS)


def _added(pairs: Pairs) -> Figure:
    """Over all blocks; the error is that of as long a time in large pairs."""
    return Figure(pairs.total_added, estimate(over_all, _large(pairs)).error)


def default_table(outcomes: list[Outcome]) -> Table:
    """Line 1."""
    table = [
        _cells(
            "model | step | steps | added | in CPU | median [quartiles] | pairs | "
            "twins differ | samples | measured | reported | ≤ 1.5 % | within 1/3"
        )
    ]
    for found in outcomes:
        pairs = _large(found.wall)
        added, share = (
            _added(found.wall),
            Figure(found.wall.share, estimate(of_watched, pairs).error),
        )
        table.append(
            [
                _label(found),
                _milliseconds(median(found.wall.plain)),
                f"{found.wall.total_steps:,}",
                _percent(added),
                _percent(_added(found.cpu)),
                _spread(pairs),
                str(len(pairs)),
                _percent(estimate(over_all, found.control)),
                "-" if found.samples is None else str(found.samples),
                _percent(share),
                "-" if found.reported is None else f"{found.reported:+.2%}",
                _verdict(added, LIMIT_DEFAULT, found),
                "-" if found.reported is None else agree(found.reported, share),
            ]
        )
    return table


def agree(reported: float, measured: Figure) -> str:
    """Whether a reported share is within a third of the measured one."""
    least, most = reported / (1 + 1 / 3), reported / (1 - 1 / 3)
    surely = least <= measured.low and measured.high <= most
    return verdict(surely, measured.high < least or measured.low > most)


def ratio(ours: Outcome, other: Outcome) -> Figure:
    """What we add to a step, by what the other one adds: medians over pairs."""
    return quotient(_middle(middle_seconds, ours), _middle(middle_seconds, other))


def _middle(figure: Callable[[Pairs], float], found: Outcome, cpu: bool = False) -> Figure:
    """A median over pairs; of several processes that of theirs, which differ by more than pairs do."""
    pairs = found.cpu if cpu else found.wall
    if found.job.processes == 1:
        return estimate(figure, pairs)
    return over_parts(figure, pairs.cut(found.job.processes))


def full_table(outcomes: list[Outcome]) -> Table:
    """Line 2."""
    table = [
        _cells(
            "model | tool | step | added a sample | [quartiles] | in CPU | added | "
            "pairs | ours / it | limit | holds"
        )
    ]
    ours = {found.job.model: found for found in outcomes if found.job.tool == "ours"}
    for found in outcomes:
        low, _, high = (INTERVAL * 1e3 * value for value in quartiles(found.wall.differences))
        row = [
            found.job.model,
            found.job.tool,
            _milliseconds(median(found.wall.plain)),
            _sample(_middle(middle_seconds, found)),
            f"[{low:.2f}, {high:.2f}]",
            _sample(_middle(middle_seconds, found, cpu=True)),
            _percent(_middle(middle, found)),
            str(len(found.wall)),
        ]
        limit = LIMITS_RATIO.get(found.job.tool)
        if limit is not None and found.job.model in ours:
            share = ratio(ours[found.job.model], found)
            row += [
                f"{share.value:.2f} ± {share.error:.2f}",
                f"{limit:.2f}",
                share.holds(limit),
            ]
        table.append(row)
    return table


def alone_table(measured: Measured) -> Table:
    """Line 3."""
    table = [
        _cells(
            "model | step | added | in CPU | median [quartiles] | pairs | twins differ | "
            "≤ 0.5 % | hooks on steps without a sample"
        )
    ]
    for found in measured.alone:
        step = median(found.wall.plain)
        holds = "-"
        if step >= LONG_STEP:
            holds = _verdict(_added(found.wall), LIMIT_ALONE, found)
        table.append(
            [
                found.job.model,
                _milliseconds(step),
                _percent(_added(found.wall)),
                _percent(_added(found.cpu)),
                _spread(_large(found.wall)),
                str(len(_large(found.wall))),
                _percent(estimate(over_all, found.control)),
                holds,
                _hooks(measured.operations.get(found.job.model)),
            ]
        )
    return table


def _hooks(found: Operations | None) -> str:
    if found is None:
        return "-"
    if not found.hooks:
        return f"none ({found.checked} steps)"
    rest = f" and {len(found.hooks) - 1} more" if len(found.hooks) > 1 else ""
    return f"FAILS: {found.hooks[0]}{rest}"


def operations_table(found: dict[str, Operations]) -> Table:
    """Line 4: of each kind of step the median and the most."""
    table = [_cells("model | kind | counted | reads of one value | copies | operations")]
    for model, counted in found.items():
        for kind, counts in (("no sample", counted.idle), ("sampled", counted.sampled)):
            table.append([model, kind, str(len(counts)), *_counts(counts)])
    return table


def _counts(counts: list[Counts]) -> Iterator[str]:
    for values in zip(*((c.reads, c.copies, c.operations) for c in counts), strict=True):
        yield f"{median(values):g} (≤ {max(values)})"


def _growth(measured: Measured) -> list[str]:
    found = measured.growth
    holds = _yes(found.watched - found.plain <= LIMIT_GROWTH)
    return [
        f"   Over {found.steps:,} steps memory grows by {found.watched / MIB:.1f} MiB watched, "
        f"{found.plain / MIB:.1f} MiB not; no growth: {holds}"
    ]


def _device(model: str, found: Device | str) -> str:
    if isinstance(found, str):
        return f"   {model}: {found}"
    waits = f"FAILS: {found.idle}" if found.idle else "none"
    return (
        f"   {model} on CUDA: waits on {found.checked} steps without a sample: {waits}; on a sampled step at "
        f"most {found.waits}; extra memory {found.memory / MIB:.1f} MiB (limit 64: "
        f"{_yes(found.memory <= LIMIT_DEVICE)})"
    )


def cost_table(outcomes: list[Outcome]) -> Table:
    """What each tool takes besides time of the step."""
    table = [
        _cells(
            "model | tool | disk / 1,000 steps | CPU / 1,000 steps | CPU to start and end | "
            "peak memory | its processes | start | close"
        )
    ]
    for found in outcomes:
        table.append(
            [
                found.job.model,
                found.job.tool,
                f"{found.disk / MIB:.2f} MiB",
                f"{found.cpu_steps:+.2f} s",
                f"{found.cpu_ends:.2f} s",
                f"{found.memory / MIB:+.0f} MiB",
                f"{found.children / MIB:.0f} MiB",
                f"{found.start:.2f} s",
                f"{found.close:.2f} s",
            ]
        )
    return table


def _cells(line: str) -> list[str]:
    return line.split(" | ")


def _label(found: Outcome) -> str:
    return found.job.model + found.job.tool.removeprefix("default")


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"


def _verdict(added: Figure, limit: float, found: Outcome) -> str:
    """Whether a limit holds; "unclear" where twins without any tool surely differ by more than it."""
    twins = estimate(over_all, found.control)
    if twins.low > limit or twins.high < -limit:
        return "unclear"
    return added.holds(limit)


def _percent(share: Figure) -> str:
    return f"{share.value:+.2%} ± {share.error:.2%}"


def _sample(seconds: Figure) -> str:
    """What a step takes longer, for all those of an interval."""
    value, error = (INTERVAL * 1e3 * part for part in seconds)
    return f"{value:.2f} ± {error:.2f} ms"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _spread(pairs: Pairs) -> str:
    low, _, high = quartiles(pairs.added)
    return f"{_percent(estimate(middle, pairs))} [{low:+.2%}, {high:+.2%}]"


def _aligned(table: Table) -> Iterator[str]:
    """Columns as wide as their widest cell; names to the left, figures to the right."""
    wide = max(len(row) for row in table)
    rows = [row + [""] * (wide - len(row)) for row in table]
    widths = [max(len(row[place]) for row in rows) for place in range(wide)]
    names = [cell in ("model", "tool", "kind") for cell in rows[0]]
    for row in rows:
        cells = (
            cell.ljust(width) if name else cell.rjust(width)
            for cell, width, name in zip(row, widths, names, strict=True)
        )
        yield ("   " + "  ".join(cells)).rstrip()
