"""`make bench-ui`: prints a table; with --json FILE keeps the figures. --quick leaves the large runs and peers out."""

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.ui import live, peers
from benchmarks.ui.browser import chromium, visits
from benchmarks.ui.data import Shape
from benchmarks.ui.serving import fill, serving

SHAPES = {Shape(60, 2_000): 0.7, Shape(200, 20_000): 1.0, Shape(2_000, 10_000): 1.5}
"""Runs, and within how many seconds their loss and map should be on screen."""
KILOBYTES = 300.0
PEER = Shape(60, 2_000)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.ui", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--updates", type=int, default=60, help="live updates, one after the other")
    options = parser.parse_args()
    shapes = list(SHAPES)[:1] if options.quick else list(SHAPES)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "runs.db"
        fill(path, shapes)
        print(
            "from navigation until on screen     first visit      later visits     goal   transferred later"
        )
        with serving(path) as address:
            for shape in shapes:
                first, later = visits(browser, f"{address}/runs/{shape.id}", 5)
                print(
                    f"{shape.label:<34} loss {first.loss_s:5.2f} s  map {first.map_s:5.2f} s   "
                    f"{later.loss_s:5.2f} s {later.map_s:5.2f} s  {SHAPES[shape]:.1f} s  "
                    f"{later.kilobytes:6.0f} KB of {KILOBYTES:.0f}"
                )
                results[shape.id] = {"first": asdict(first), "later": asdict(later)}
            found = live.measure(browser, address, path, 200, options.updates, 30)
            print(
                f"live, 200 layers: a point after {found.wait_s:.2f} s at most, {found.refresh_kb:.1f} KB a refresh "
                f"(largest {found.largest_kb:.1f}), heap {found.heap_start_mb:.1f} -> {found.heap_end_mb:.1f} MB "
                f"over {found.updates} updates"
            )
            results["live"] = asdict(found)
        if not options.quick:
            logs = Path(folder) / "events"
            peers.write(logs, PEER)
            with peers.serving(logs) as address:
                seconds = peers.first_chart(browser, address)
            print(
                f"TensorBoard, {PEER.label}: first chart after {seconds:.2f} s, of {PEER.layers * 4 + 1} charts"
            )
            results["tensorboard"] = {"first_chart_s": seconds}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
