"""`python -m benchmarks.store`: fill stores, time the charts' queries, print each table as soon as it is known.

The filled stores stay in their folder, and are asked again by the next call: filling takes longer than all else.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.store import peers, queries, report
from benchmarks.store.data import Size
from benchmarks.store.fill import filled
from benchmarks.store.progress import Progress
from benchmarks.store.report import Measured

LAYERS, STATISTICS = 200, 20
STEPS, QUICK_STEPS, SHORT_STEPS = 100_000, 10_000, 1_000
RUNS = 1_000
FOLDER = Path("build/bench-store")
ROW_STEPS, EVENT_STEPS = 1_000, 250
"""Steps that a store with a row for each value, and TensorBoard, are given: more would take them hours."""


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.store", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_STEPS:,} steps, fewer repeats"
    )
    parser.add_argument("--steps", type=int, help=f"recorded steps instead of {STEPS:,}")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where the stores are kept ({FOLDER})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure")
    options = parser.parse_args(arguments)
    steps = options.steps or (QUICK_STEPS if options.quick else STEPS)
    if steps <= SHORT_STEPS:
        parser.error(f"--steps {steps}: more than {SHORT_STEPS:,} are compared with so many")
    options.folder.mkdir(parents=True, exist_ok=True)
    measured = measure(options.folder, steps, quick=options.quick)
    if options.json:
        options.json.write_text(report.as_json(measured))
        print(f"\nEvery figure: {options.json}", file=sys.stderr)


def measure(folder: Path, steps: int, *, quick: bool) -> Measured:
    """Ask a long and a short store in `folder`, filled where they are not, and give the others their share.

    Each part is printed when it is done.
    """
    progress = Progress()
    repeats, cold = (20, 1) if quick else (100, 3)
    sizes = [
        Size(LAYERS, STATISTICS, length, min(length // 3, 5_000)) for length in (SHORT_STEPS, steps)
    ]
    short, long = (filled(folder / f"{size.steps}.db", size, RUNS, progress) for size in sizes)
    print(report.head(long, short), flush=True)
    short_times, long_times = queries.measure(
        [Path(short.path), Path(long.path)], repeats, cold, progress
    )
    print(report.charts(long_times, short_times), flush=True)
    share = 4 if quick else 1
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        others = [
            peers.rows(Path(temporary), Size(LAYERS, STATISTICS, ROW_STEPS // share, 0), progress),
            peers.tensorboard(
                Path(temporary), Size(LAYERS, STATISTICS, EVENT_STEPS // share, 0), progress
            ),
        ]
    measured = Measured(long, short, long_times, short_times, others)
    print(report.sizes(measured), flush=True)
    return measured


if __name__ == "__main__":
    main()
