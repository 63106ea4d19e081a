"""`make bench-ui`: measures lines 1 to 4 of what the dashboard promises and prints each as soon as it is known."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from benchmarks.ui import live, peers, visible
from benchmarks.ui.browser import chromium, list_visit, visits
from benchmarks.ui.data import Shape
from benchmarks.ui.serving import fill, fill_list, serving

SHAPES = {Shape(60, 2_000): 0.7, Shape(200, 20_000): 1.0, Shape(2_000, 10_000): 1.5}
"""Runs, and within how many seconds their loss and map should be on screen."""
LATER_KB = 300.0
LIST, LIST_S = 1_000, 0.7
"""Runs of the list, and within how many seconds it should be on screen."""
LIVE_LAYERS, REFRESH_KB, WAIT_S = 200, 20.0, 2.0
HOUR = 3_600
"""Refreshes of an open page in an hour."""
LONG = Shape(20, 100_000)
"""The run in which one spike and one NaN are looked for."""
PEER = Shape(60, 2_000)
QUESTIONS = Path(__file__).parents[2] / "tests" / "e2e" / "test_questions.py"

Results = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.ui", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    parser.add_argument(
        "--database", type=Path, metavar="FILE", help="keep the made-up runs, take them from there"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small runs, ten minutes less, no peers"
    )
    options = parser.parse_args()
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = options.database or Path(folder) / "runs.db"
        results["first plots"] = _first_plots(browser, path, options.quick)
        results["questions"] = _questions()
        results["live"] = _live(browser, path, Path(folder), options.quick)
        results["visible"] = _visible(browser, Path(folder), options.quick)
        if not options.quick:
            results["tensorboard"] = _tensorboard(browser, Path(folder) / "events")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def _say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def _part(title: str) -> Iterator[None]:
    _say(f"\n{title}")
    begin = time.monotonic()
    yield
    _say(f"  ({time.monotonic() - begin:.0f} s)")


def _first_plots(browser: Browser, path: Path, quick: bool) -> Results:
    """Line 1: how long until something is to be seen."""
    shapes = list(SHAPES)[:1] if quick else list(SHAPES)
    found: Results = {}
    with _part(
        "1. From navigation until loss and map are on screen; first: nothing cached by browser or server"
    ):
        fill(path, shapes, _say)
        for shape in shapes:
            with serving(path) as address:
                first, later = visits(browser, f"{address}/runs/{shape.id}", 5)
            goal = SHAPES[shape]
            _say(
                f"  {shape.label:<28} first: loss {first.loss_s:.2f} s, map {first.map_s:.2f} s (at most {goal} s); "
                f"later: {later.loss_s:.2f} s, {later.map_s:.2f} s, {later.kilobytes:.0f} KB (at most {LATER_KB:.0f})"
            )
            found[shape.id] = {"first": asdict(first), "later": asdict(later), "goal_s": goal}
        with tempfile.TemporaryDirectory() as folder:
            runs = Path(folder) / "list.db"
            fill_list(runs, 100 if quick else LIST)
            with serving(runs) as address:
                list_visit(
                    browser, address
                )  # makes the cards, as visits do while runs come one by one
                seconds = sorted(list_visit(browser, address) for _ in range(3))[1]
        _say(f"  the list of {100 if quick else LIST:,} runs: {seconds:.2f} s (at most {LIST_S} s)")
        found["list_s"] = seconds
    return found


def _questions() -> Results:
    """Line 2: the browser tests that read the answers to the eight questions off the page."""
    with _part(
        "2. Eight questions, each answered in at most two interactions: a browser test for each"
    ):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            str(QUESTIONS),
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        ended = run.stdout.strip().splitlines()[-1] if run.stdout.strip() else run.stderr[-300:]
        _say(f"  {ended}")
    counts = {
        word: int(count)
        for count, word in re.findall(r"(\d+) (passed|failed|error|skipped)", ended)
    }
    return {"status": run.returncode, **counts}


def _live(browser: Browser, path: Path, folder: Path, quick: bool) -> Results:
    """Line 3: what an open page costs while a run goes on."""
    with _part(f"3. A live run of {LIVE_LAYERS} layers"):
        with serving(path) as address:
            found = live.measure(browser, address, path, LIVE_LAYERS, 10 if quick else 60, 30)
        _say(
            f"  a point is on the page after {found.wait_s:.2f} s at most (goal {WAIT_S} s); "
            f"{found.refresh_kb:.1f} KB a refresh, the largest {found.largest_kb:.1f} (goal {REFRESH_KB:.0f}); "
            f"{found.idle_paints} charts painted in 5 s without news"
        )
        refreshes = HOUR // 20 if quick else HOUR
        _say(
            f"  an hour of refreshes, {live.HASTE} times as fast: {refreshes:,} that each bring a step of all layers"
        )
        hours = folder / "hour.db"
        with serving(hours, "benchmarks.ui.hurried:app()") as address:
            hour = live.hour(browser, address, hours, LIVE_LAYERS, refreshes, _say)
        _say(f"  heap of the second half against the first: {100 * (hour.growth - 1):+.1f} %")
    return {"refresh": asdict(found), "hour": asdict(hour), "growth": hour.growth}


def _visible(browser: Browser, folder: Path, quick: bool) -> Results:
    """Line 4: whether what lasted one step is seen."""
    shape = Shape(LONG.layers, 5_000) if quick else LONG
    views = 2 * len(visible.ZOOMS)
    with _part(
        f"4. One step that spikes and one that is NaN in {shape.steps:,} steps, in loss and map, {views} views"
    ):
        path = folder / "long.db"
        fill(path, [shape], _say)
        with serving(path) as address:
            missed = visible.missed(browser, address, shape)
        _say("  all seen" if not missed else f"  missed: {'; '.join(missed)}")
    return {"views": views, "missed": missed}


def _tensorboard(browser: Browser, logs: Path) -> Results:
    """The same run in what people have today."""
    with _part(f"TensorBoard, {PEER.label}"):
        peers.write(logs, PEER)
        with peers.serving(logs) as address:
            seconds = peers.first_chart(browser, address)
        _say(
            f"  first chart after {seconds:.2f} s, one of {PEER.layers * 4 + 1}; of the layers' health nothing"
        )
    return {"first_chart_s": seconds}


if __name__ == "__main__":
    main()
