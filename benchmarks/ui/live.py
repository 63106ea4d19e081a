"""What a live run costs a page that is open: bytes a refresh, the wait for a new point, memory, drawing."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page

from benchmarks.ui.browser import PATIENCE_S, until
from benchmarks.ui.data import Shape, Stream
from trainvitals.app.store import Store

LAST = "document.querySelector('[data-figure=loss]').data?.[0].x.at(-1) ?? -1"
PAINTS = "[...document.querySelectorAll('[data-painted]')].reduce((n, e) => n + Number(e.dataset.painted), 0)"
VERSION = "Number(document.body.dataset.drawn)"
HEAD_STEPS = 2_000
"""Steps that a live run has when its page is opened."""
HASTE = 200
"""How many times faster the page's own timers run while an hour is simulated."""
HURRY = f"""
const wait = window.setTimeout;
window.setTimeout = (call, ms, ...rest) => wait(call, (ms ?? 0) / {HASTE}, ...rest);
"""


@dataclass(frozen=True)
class Live:
    """Figures of a page that was open while steps came in, at one refresh a second."""

    wait_s: float
    """From the answer of the store until the page has the point: the longest of all."""
    refresh_kb: float
    """Bytes of an answer that brought something new, compressed: median, and the largest."""
    largest_kb: float
    idle_paints: int
    """Charts painted in five seconds in which nothing came."""


@dataclass(frozen=True)
class Hour:
    """The JavaScript heap of a page over as many refreshes as an hour has seconds."""

    refreshes: int
    heap_mb: list[float]
    """After a collection, at every tenth of the refreshes from the first on: JavaScript's objects and the buffers of
    numbers that they hold. Not the browser's own heap, in which it notes every request for the one who measures."""
    nodes: list[int]
    """DOM nodes at the same moments, those among them that a script still holds."""

    @property
    def growth(self) -> float:
        """By what factor the second half's mean differs from the first's, the opening left out."""
        held = self.heap_mb[1:]
        middle = len(held) // 2
        return statistics.mean(held[-middle:]) / statistics.mean(held[:middle])


class Watched:
    """The page of a live run, and the run behind it."""

    def __init__(
        self, browser: Browser, address: str, store: Store, layers: int, name: str
    ) -> None:
        self._stream = Stream(Shape(layers, 100_000_000), run=name, time=time.time() - HEAD_STEPS)
        self._store = store
        self.step = HEAD_STEPS
        store.append(self._stream.begin(), time.time())
        for first in range(0, HEAD_STEPS, 100):
            store.append(self._stream.steps(first, first + 100), time.time())
        self.context = browser.new_context(viewport={"width": 1440, "height": 900})
        self._address = f"{address}/runs/{name}"

    def open(self) -> Page:
        """Open the page and wait for its charts."""
        page = self.context.new_page()
        page.goto(self._address)
        until(page, f"({LAST}) >= {HEAD_STEPS - 20} && 'drawn' in document.body.dataset")
        return page

    def grow(self, steps: int) -> None:
        """Let `steps` more steps come in."""
        self._store.append(self._stream.steps(self.step, self.step + steps), time.time())
        self.step += steps


def measure(
    browser: Browser, address: str, path: Path, layers: int, updates: int, per_update: int
) -> Live:
    """Open the page of a run of `layers` layers and let `updates` times some steps come in."""
    with Store.open(path) as store:
        watched = Watched(browser, address, store, layers, f"live-{layers}")
        page = watched.open()
        sizes: list[int] = []
        page.on(
            "response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0)))
        )
        waits = []
        for _ in range(updates):
            watched.grow(per_update)
            begin = time.monotonic()
            until(page, f"({LAST}) >= {watched.step - per_update}")
            waits.append(time.monotonic() - begin)
        page.wait_for_timeout(2_000)
        before = page.evaluate(PAINTS)
        page.wait_for_timeout(5_000)
        idle = page.evaluate(PAINTS) - before
        watched.context.close()
    brought = [size for size in sizes if size > 1_000]
    return Live(max(waits), statistics.median(brought) / 1e3, max(brought) / 1e3, idle)


def hour(
    browser: Browser,
    address: str,
    path: Path,
    layers: int,
    refreshes: int,
    tell: Callable[[str], None],
) -> Hour:
    """The heap over `refreshes` answers that each bring a step of all layers; at a server without pauses."""
    with Store.open(path) as store:
        watched = Watched(browser, address, store, layers, f"hour-{layers}")
        watched.context.add_init_script(HURRY)
        page = watched.open()
        devtools = watched.context.new_cdp_session(page)
        heaps, nodes = [], []
        for count in range(refreshes + 1):
            if count % max(refreshes // 10, 1) == 0:
                devtools.send("HeapProfiler.collectGarbage")
                used = devtools.send("Runtime.getHeapUsage")
                heaps.append((used["usedSize"] + used["backingStorageSize"]) / 1e6)
                nodes.append(devtools.send("Memory.getDOMCounters")["nodes"])
                tell(
                    f"  {count:,} of {refreshes:,} refreshes: heap {heaps[-1]:.2f} MB, {nodes[-1]:,} nodes"
                )
            held = page.evaluate(VERSION)
            watched.grow(1)
            end = time.monotonic() + PATIENCE_S
            # the same question again and again: the browser keeps the text of each that it was asked
            while page.evaluate(VERSION) <= held:
                if time.monotonic() > end:
                    raise RuntimeError(f"Step {watched.step - 1} never came to the page.")
                time.sleep(0.005)
        watched.context.close()
    return Hour(refreshes, heaps, nodes)
