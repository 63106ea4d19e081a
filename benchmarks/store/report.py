"""The tables that are printed, and everything behind them as JSON."""

import json
import os
import platform
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from benchmarks.store.fill import Filled
from benchmarks.store.peers import Peer
from benchmarks.store.queries import Times

LIMIT_P50, LIMIT_P99, LIMIT_COLD = 20.0, 75.0, 300.0
"""Milliseconds."""
LIMIT_RATIO = 1.5
LIMIT_LAYER_STEP, LIMIT_HISTOGRAM = 75.0, 200.0
"""Bytes; of a layer-step of 20 statistics."""

Table = list[list[str]]


@dataclass(frozen=True)
class Measured:
    """All that was measured."""

    long: Filled
    short: Filled
    long_times: Mapping[str, Times]
    short_times: Mapping[str, Times]
    peers: list[Peer]


def environment() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }


def head(long: Filled, short: Filled) -> str:
    """What is measured, and where."""
    size, here = long.size, environment()
    values = size.layer_steps * size.statistics
    lines = [
        f"The store with {size.layers} layers × {size.statistics} statistics × {size.steps:,} steps "
        f"({values / 1e6:,.0f} million values) and {long.runs:,} runs, beside one of {short.size.steps:,} steps.",
        f"Python {here['python']}, SQLite {here['sqlite']}, {here['cores']} cores ({here['machine']}).",
    ]
    return "\n".join(lines)


def charts(long_times: Mapping[str, Times], short_times: Mapping[str, Times]) -> str:
    """How long the charts' queries take."""
    lines = [
        "",
        f"1. Charts, milliseconds (limits: p50 {LIMIT_P50:g}, p99 {LIMIT_P99:g}, cold {LIMIT_COLD:g}; "
        f"{LIMIT_RATIO:g} times the short one's)",
        *_aligned(times_table(long_times, short_times)),
        "   cold: a new process that opens the store, its file dropped from the system's memory before",
        "   buckets: of each curve, between half as many as asked for and as many; the short run may have fewer steps",
    ]
    return "\n".join(lines)


def sizes(measured: Measured) -> str:
    """What writing costs, and how much room it takes, beside others."""
    long = measured.long
    lines = [
        "",
        "2. Writing and size",
        *_aligned(size_table(measured)),
        f"   a histogram: {long.histogram_bytes:.1f} B (limit {LIMIT_HISTOGRAM:g}: "
        f"{_yes(long.histogram_bytes <= LIMIT_HISTOGRAM)}); filling all took {long.total_seconds:.0f} s",
    ]
    return "\n".join(lines)


def as_json(measured: Measured) -> str:
    """Everything."""
    return json.dumps({"environment": environment(), **asdict(measured)}, indent=1)


def times_table(long_times: Mapping[str, Times], short_times: Mapping[str, Times]) -> Table:
    """Line 1."""
    table = [
        _cells("query | buckets | p50 | p99 | cold | short buckets | short p50 | ratio | holds")
    ]
    for name, found in long_times.items():
        before = short_times[name]
        ratio = found.p50 / before.p50
        holds = (
            found.p50 <= LIMIT_P50
            and found.p99 <= LIMIT_P99
            and found.cold <= LIMIT_COLD
            and ratio <= LIMIT_RATIO
        )
        figures = [
            *(f"{found.buckets:,}", *(f"{ms:.1f}" for ms in (found.p50, found.p99, found.cold))),
            *(f"{before.buckets:,}", f"{before.p50:.1f}"),
        ]
        table.append([name, *figures, f"{ratio:.2f}", _yes(holds)])
    return table


def size_table(measured: Measured) -> Table:
    """Line 3, beside others."""
    long, times = measured.long, measured.long_times
    table = [
        _cells(
            "store | steps | layer-steps / CPU s | bytes / layer-step | its ratio | one statistic | heatmap"
        )
    ]
    own = long.layer_step_bytes
    table.append(
        [
            "trainvitals",
            f"{long.size.steps:,}",
            f"{long.rate:,.0f}",
            f"{own:.1f} (limit {LIMIT_LAYER_STEP:g}: {_yes(own <= LIMIT_LAYER_STEP)})",
            "1.0",
            f"{times['one layer' + chr(39) + 's statistics'].p50:.1f} ms (all 20)",
            f"{times['heatmap, 400 buckets'].p50:.1f} ms",
        ]
    )
    for peer in measured.peers:
        table.append(
            [
                peer.name,
                f"{peer.size.steps:,}",
                f"{peer.rate:,.0f}",
                f"{peer.layer_step_bytes:.1f}",
                f"{peer.layer_step_bytes / own:.1f}",
                f"{peer.scalar:.1f} ms",
                f"{peer.heatmap:.1f} ms",
            ]
        )
    return table


def _cells(line: str) -> list[str]:
    return line.split(" | ")


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"


def _aligned(table: Table) -> Iterator[str]:
    """Columns as wide as their widest cell; names to the left, figures to the right."""
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield ("   " + "  ".join(cells)).rstrip()
