"""`make bench-ui`: measures lines 1 to 4 of what the dashboard promises and prints each as soon as it is known."""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from benchmarks.ui import live, peers, visible
from benchmarks.ui.browser import chromium, first_visit, later_visits, list_visit, middle
from benchmarks.ui.data import Shape
from benchmarks.ui.serving import fill, fill_list, serving

SHAPES = {Shape(60, 2_000): 0.7, Shape(200, 20_000): 1.0, Shape(2_000, 10_000): 1.5}
"""Runs, and within how many seconds their loss and map should be on screen."""
VISITS = 7
"""Of each page, of which the median is told, and the longest."""
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


@dataclass(frozen=True)
class Place:
    """What a part measures with."""

    browser: Browser
    folder: Path
    """For databases that nobody needs afterwards."""
    database: Path
    """Of the runs that are looked at, kept where the caller asked for it."""
    quick: bool


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
    parser.add_argument(
        "--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    options = parser.parse_args()
    chosen = options.only or [part for part in PARTS if part != "peers" or not options.quick]
    results: Results = {}
    with tempfile.TemporaryDirectory() as held, chromium() as browser:
        folder = Path(held)
        place = Place(browser, folder, options.database or folder / "runs.db", options.quick)
        for name in chosen:
            title, measure = PARTS[name]
            _say(f"\n{title}")
            begin = time.monotonic()
            results[name] = measure(place)
            _say(f"  ({time.monotonic() - begin:.0f} s)")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def _say(text: str) -> None:
    print(text, flush=True)


def _first_plots(place: Place) -> Results:
    """Line 1: how long until something is to be seen."""
    shapes = list(SHAPES)[:1] if place.quick else list(SHAPES)
    found: Results = {}
    fill(place.database, shapes, _say)
    for shape in shapes:
        firsts = []
        for _ in range(VISITS):  # each at a server that has just started
            with serving(place.database) as address:
                firsts.append(first_visit(place.browser, f"{address}/runs/{shape.id}"))
        with serving(place.database) as address:
            later = middle(later_visits(place.browser, f"{address}/runs/{shape.id}", VISITS))
        first, goal = middle(firsts), SHAPES[shape]
        longest = max(max(item.loss_s, item.map_s) for item in firsts)
        _say(
            f"  {shape.label:<28} first: loss {first.loss_s:.2f} s, map {first.map_s:.2f} s, longest of {VISITS} "
            f"{longest:.2f} s (at most {goal} s); later: {later.loss_s:.2f} s, {later.map_s:.2f} s, "
            f"{later.kilobytes:.0f} KB (at most {LATER_KB:.0f})"
        )
        found[shape.id] = {
            "first": asdict(first),
            "longest_s": longest,
            "later": asdict(later),
            "goal_s": goal,
        }
    return found


def _list(place: Place) -> Results:
    """Line 1: how long until the list of runs is to be seen."""
    count = 100 if place.quick else LIST
    path = place.folder / "list.db"
    fill_list(path, count)
    with serving(path) as address:
        list_visit(
            place.browser, address
        )  # makes the cards, as visits do while runs come one by one
        made = [list_visit(place.browser, address) for _ in range(VISITS)]
    seconds = statistics.median(made)
    _say(
        f"  {count:,} runs: {seconds:.2f} s, longest of {VISITS} {max(made):.2f} s (at most {LIST_S} s)"
    )
    return {"runs": count, "seconds": seconds, "longest_s": max(made)}


def _questions(place: Place) -> Results:
    """Line 2: the browser tests that read the answers to the eight questions off the page."""
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


def _live(place: Place) -> Results:
    """Line 3: what an open page costs while a run goes on."""
    path = place.folder / "live.db"
    updates = 10 if place.quick else 60
    with serving(path) as address:
        found = live.measure(place.browser, address, path, LIVE_LAYERS, updates, 30)
    _say(
        f"  a point is on the page after {found.wait_s:.2f} s at most (goal {WAIT_S} s); "
        f"{found.refresh_kb:.1f} KB a refresh, the largest {found.largest_kb:.1f} (goal {REFRESH_KB:.0f}); "
        f"{found.idle_paints} charts painted in 5 s without news"
    )
    return asdict(found)


def _hour(place: Place) -> Results:
    """Line 3: whether a page that stays open grows."""
    path = place.folder / "hour.db"
    refreshes = HOUR // 20 if place.quick else HOUR
    _say(f"  {refreshes:,} refreshes that each bring a step of all layers")
    with serving(path, "--hurried") as address:
        hour = live.hour(place.browser, address, path, LIVE_LAYERS, refreshes, _say)
    _say(f"  heap of the second half against the first: {100 * (hour.growth - 1):+.1f} %")
    return asdict(hour) | {"growth": hour.growth}


def _visible(place: Place) -> Results:
    """Line 4: whether what lasted one step is seen."""
    shape = Shape(LONG.layers, 5_000) if place.quick else LONG
    path = place.folder / "long.db"
    fill(path, [shape], _say)
    with serving(path) as address:
        missed = visible.missed(place.browser, address, shape)
    views = 2 * len(visible.ZOOMS)
    seen = "all seen" if not missed else f"missed: {'; '.join(missed)}"
    _say(f"  {shape.steps:,} steps, {views} views of loss and map: {seen}")
    return {"steps": shape.steps, "views": views, "missed": missed}


def _peers(place: Place) -> Results:
    """The same runs in what people have today."""
    logs = place.folder / "events"
    peers.write(logs, PEER)
    with peers.serving(logs) as address:
        seconds = peers.first_chart(place.browser, address)
    _say(
        f"  {PEER.label}: first chart after {seconds:.2f} s, one of {PEER.layers * 4 + 1}; "
        "of the layers' health nothing"
    )
    long = place.folder / "long-events"
    peers.write_loss(long, LONG)
    with peers.serving(long) as address:
        kept = peers.kept_steps(address)
    seen = {"spike": LONG.spike in kept, "NaN": LONG.broken in kept}
    _say(
        f"  {LONG.steps:,} steps of a loss: {len(kept):,} are kept, "
        + ", ".join(
            f"the {what} {'among' if here else 'not among'} them" for what, here in seen.items()
        )
    )
    return {"first_chart_s": seconds, "kept_steps": len(kept), "kept": seen}


PARTS: dict[str, tuple[str, Callable[[Place], Results]]] = {
    "first": (
        "1. From navigation until loss and map are on screen; first: nothing cached by browser or server",
        _first_plots,
    ),
    "list": ("1. From navigation until the list of runs is on screen", _list),
    "questions": (
        "2. Eight questions, each answered in at most two interactions: a browser test for each",
        _questions,
    ),
    "live": (f"3. A live run of {LIVE_LAYERS} layers", _live),
    "hour": (f"3. An hour of refreshes, {live.HASTE} times as fast", _hour),
    "visible": ("4. One step that spikes and one that is NaN", _visible),
    "peers": ("TensorBoard, with the same data", _peers),
}
"""By name: what is measured, and what measures it."""

if __name__ == "__main__":
    main()
