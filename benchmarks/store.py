"""What the store costs: ingest, bytes, and the time of the charts' reads."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainvitals.app.store import Store
from trainvitals.hooks.wire.codec import pack_floats
from trainvitals.hooks.wire.records import Batch, Layout, Record, Row, Sample, Start, Step

LAYERS = 60
COLUMNS = [f"statistic{number}" for number in range(10)]
STEPS = (1_000, 10_000)
BATCH = 50
"""Records in a batch, as a training that logs every step sends in a second or two."""
REPEATS = 15


def records(steps: int) -> list[Record]:
    """A stream of `steps` samples whose statistics wander as those of a training do."""
    random = np.random.default_rng(0)
    names = [f"blocks.{number}.mlp" for number in range(LAYERS)]
    rows = [Row(name=name, layer=name) for name in names]
    walk = random.normal(size=(LAYERS, len(COLUMNS)))
    made: list[Record] = [
        Start(seq=0, time=1e9, project="bench", name="bench"),
        Layout(seq=1, time=1e9, step=0, group=0, kind="activation", rows=rows, columns=COLUMNS),
    ]
    for step in range(steps):
        walk += random.normal(scale=0.01, size=walk.shape)
        values = np.exp(walk + random.normal(scale=0.05, size=walk.shape))
        samples = [Sample(group=0, values=pack_floats(values))]
        scalars = {"train/loss": float(values[0, 0]), "tv/grad_norm": float(values[1, 0])}
        made.append(
            Step(seq=step + 2, time=1e9 + step, step=step, scalars=scalars, samples=samples)
        )
    return made


def p50(read: Callable[[], object]) -> float:
    """Median time of `read`, milliseconds."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        read()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def measure(steps: int, folder: Path) -> None:
    """Print one line."""
    made = records(steps)
    batches = [
        Batch(version=1, run="r", attempt="a", rank=0, first=n, records=made[n : n + BATCH])
        for n in range(0, len(made), BATCH)
    ]
    with Store.open(folder / f"{steps}.db") as store:
        begin = time.process_time()
        for batch in batches:
            store.append(batch, 1e9)
        rate = steps * LAYERS / (time.process_time() - begin)
        name = f"blocks.{LAYERS // 2}.mlp"
        reads = (
            p50(lambda: store.series("r", ["train/loss", "tv/grad_norm"])),
            p50(lambda: store.matrix("r", "activation", COLUMNS[0])),
            p50(lambda: store.row("r", "activation", name)),
        )
    # closing the last connection brings the write-ahead log into the file
    size = (folder / f"{steps}.db").stat().st_size / (steps * LAYERS)
    times = " ".join(f"{value:7.1f} ms" for value in reads)
    print(f"{steps:>7,} {rate:>14,.0f} {size:>9.1f} B {times}")


def main() -> None:
    """Print one line a length of training."""
    print(f"\nstore: {LAYERS} layers x {len(COLUMNS)} statistics (float32), p50 of reads")
    print(f"{'steps':>7} {'layer-steps/s':>14} {'a l.-step':>11} {'series':>10} {'matrix':>10} row")
    with tempfile.TemporaryDirectory() as folder:
        for steps in STEPS:
            measure(steps, Path(folder))


if __name__ == "__main__":
    main()
