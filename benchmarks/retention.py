"""How long a batch waits while a large run is purged beside it: `make bench-retention`.

One process purges a run as the server does, another one stores a batch after the other. Printed are the longest and the
99th percentile of a batch's time, with the purge and without, and how fast room comes free.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from trainvitals.app.janitor import clear
from trainvitals.app.retention import Policy
from trainvitals.app.store import Store
from trainvitals.hooks.wire.codec import pack_counts, pack_floats
from trainvitals.hooks.wire.records import (
    Batch,
    Histograms,
    Layout,
    Record,
    Row,
    Sample,
    Start,
    Step,
)

ROWS, COLUMNS = 200, 20
DAY_S = 86_400.0


def records(run_steps: int) -> list[Record]:
    """A stream of `run_steps` samples of 200 layers × 20 statistics, every tenth with histograms."""
    random = np.random.default_rng(1)
    names = [Row(name=f"block.{number}", layer=f"block.{number}") for number in range(ROWS)]
    columns = [f"s{number}" for number in range(COLUMNS)]
    layout = Layout(seq=1, time=0, step=0, group=0, kind="activation", rows=names, columns=columns)
    made: list[Record] = [Start(seq=0, time=0, project="bench", name="bench"), layout]
    for step in range(run_steps):
        values = random.lognormal(size=(ROWS, COLUMNS)).astype(np.float32)
        counts = pack_counts(random.integers(0, 10**6, (ROWS, 96)))
        shapes = [Histograms(group=0, kind="activation", counts=counts)] if step % 10 == 0 else []
        sample = Sample(group=0, values=pack_floats(values))
        made.append(Step(seq=len(made), time=0, step=step, samples=[sample], histograms=shapes))
    return made


def store_run(store: Store, run: str, made: list[Record], received: float) -> list[float]:
    """Store the records in batches of 20; how long each took, seconds."""
    took = []
    for first in range(0, len(made), 20):
        part = made[first : first + 20]
        batch = Batch(version=2, run=run, attempt="a", rank=0, first=first, records=part)
        begun = time.perf_counter()
        store.append(batch, received)
        took.append(time.perf_counter() - begun)
    return took


def purge(path: Path) -> None:
    """Purge all that is due, and tell how it went."""
    with Store.open(path) as store:
        due = store.removals(Policy(undo_days=0.0), time.time())
        begun, before = time.perf_counter(), store.info().bytes
        clear(store, due, time.time(), time.sleep)
        freed, took = before - store.info().bytes, time.perf_counter() - begun
        print(f"purge: {freed / 1e6:.0f} MB given back in {took:.1f} s, beside a full load")


def told(name: str, took: list[float]) -> None:
    """Print what batches took."""
    ms = 1000 * np.array(took)
    print(
        f"{name}: {len(ms)} batches, median {np.median(ms):.1f} ms, p99 {np.percentile(ms, 99):.1f} ms, "
        f"longest {ms.max():.1f} ms"
    )


def main() -> None:
    """Fill, measure without, measure with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10_000, help="Of the run that is purged.")
    parser.add_argument("--purge", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.purge:
        purge(arguments.purge)
        return
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "t.db") as store:
        now = time.time()
        store_run(store, "old", records(arguments.steps), now - 30 * DAY_S)
        store.delete_run("old", now - 10 * DAY_S)
        made = records(2000)
        told("alone", store_run(store, "alone", made, now))
        command = [sys.executable, "-m", "benchmarks.retention", "--purge", str(store.path)]
        with subprocess.Popen(command) as process:
            done = threading.Event()
            threading.Thread(target=lambda: (process.wait(), done.set()), daemon=True).start()
            took: list[float] = []
            while not done.is_set():
                took += store_run(store, f"beside-{len(took)}", made, now)
        told("beside the purge", took)


if __name__ == "__main__":
    main()
