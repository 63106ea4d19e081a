"""The seven questions that the pages ask, and how long their answers take."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.store import data
from benchmarks.store.fill import COMPARED
from benchmarks.store.progress import Progress
from trainvitals.app.store import Store

Query = Callable[[Store], Any]


def _row(store: Store) -> Any:
    return store.row("main", "activation", data.layer(7), points=600)


QUERIES: Mapping[str, Query] = {
    "a scalar, 2,000 points": lambda s: s.series("main", ["train/loss"], points=2000),
    "heatmap, 400 buckets": lambda s: s.matrix("main", "activation", data.statistic(3)),
    "one layer's statistics": _row,
    "one layer's histograms, 300 times": lambda s: s.histograms(
        "main", "activation", data.layer(7), times=300
    ),
    "latest of everything": lambda s: s.latest("main", "activation"),
    "list of 1,000 runs": lambda s: s.runs(limit=1000),
    "a scalar of 20 runs": lambda s: [
        s.series(f"run{number:04}", ["train/loss"], points=1000) for number in range(COMPARED)
    ],
}


@dataclass(frozen=True)
class Times:
    """Of one query, milliseconds."""

    p50: float
    p99: float
    cold: float
    """The first answer of a new process whose file is not in memory: the slowest of some."""
    buckets: int
    """How many buckets or times the answer has, of each run; 0 where it has none."""


def measure(
    paths: Sequence[Path], repeats: int, cold: int, progress: Progress
) -> list[dict[str, Times]]:
    """Every query on each of some stores, warm `repeats` times and in `cold` new processes.

    The stores take turns with each answer, so that what else the machine does meets all of them alike.
    """
    found: list[dict[str, Times]] = [{} for _ in paths]
    for number, (name, query) in enumerate(QUERIES.items()):
        first = [
            max((cold_time(path, name) for _ in range(cold)), default=np.nan) for path in paths
        ]
        with contextlib.ExitStack() as opened:
            stores = [opened.enter_context(Store.open(path)) for path in paths]
            buckets = [_buckets(query(store)) for store in stores]
            times = np.array(
                [[_timed(store, query) for store in stores] for _ in range(repeats + 1)]
            )
        for place, known in enumerate(found):  # the first answers do not count
            p50, p99 = np.percentile(times[1:, place], [50, 99]).tolist()
            known[name] = Times(p50, p99, first[place], buckets[place])
        progress.show("charts", (number + 1) / len(QUERIES))
    return found


def _buckets(answer: Any) -> int:
    while isinstance(answer, list | dict):
        answer = next(iter(answer.values() if isinstance(answer, dict) else answer))
    return len(getattr(answer, "steps", ()))


def _timed(store: Store, query: Query) -> float:
    """Milliseconds of one answer."""
    begin = time.perf_counter()
    query(store)
    return (time.perf_counter() - begin) * 1e3


def cold_time(path: Path, name: str) -> float:
    """Milliseconds from opening the store to the answer in a new process, its file out of the system's memory."""
    forget(path)
    command = [sys.executable, "-m", "benchmarks.store.queries", str(path), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def forget(path: Path) -> None:
    """Ask the system to drop its copy of the file, which it does for what is written to disk (Linux)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    asked = QUERIES[sys.argv[2]]
    opened = time.perf_counter()
    with Store.open(sys.argv[1]) as cold_store:
        asked(cold_store)
        print((time.perf_counter() - opened) * 1e3)
