"""What a live run costs a page that is open: bytes a refresh, the wait for a new point, memory, drawing."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser

from benchmarks.ui.browser import until
from benchmarks.ui.data import Shape, Stream
from trainvitals.app.store import Store

LAST = "document.querySelector('[data-figure=loss]').data?.[0].x.at(-1) ?? -1"


@dataclass(frozen=True)
class Live:
    """Figures of a page that was open while steps came in."""

    wait_s: float
    """From the answer of the store until the page has the point: the longest of all."""
    refresh_kb: float
    """Bytes of an answer that brought something new, compressed: median, and the largest."""
    largest_kb: float
    heap_start_mb: float
    """JavaScript's heap after a collection, at the first tenth of the updates and at the end."""
    heap_end_mb: float
    updates: int


def measure(
    browser: Browser, address: str, path: Path, layers: int, updates: int, per_update: int
) -> Live:
    """Open the page of a run of `layers` layers and 2,000 steps, and let `updates` times some steps come in."""
    shape = Shape(layers, 2_000)
    stream = Stream(shape, run=f"live-{layers}", time=time.time() - 60)
    with Store.open(path) as store:
        store.append(stream.begin(), time.time())
        for first in range(0, 2_000, 100):
            store.append(stream.steps(first, first + 100), time.time())
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        sizes: list[int] = []
        page.on(
            "response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0)))
        )
        page.goto(f"{address}/runs/{stream.run}")
        until(page, f"({LAST}) >= 1999")
        sizes.clear()
        devtools = context.new_cdp_session(page)
        waits, heaps, step = [], [], 2_000
        for update in range(updates):
            store.append(stream.steps(step, step + per_update), time.time())
            begin, step = time.monotonic(), step + per_update
            until(page, f"({LAST}) >= {step - 20}")
            waits.append(time.monotonic() - begin)
            if update in (updates // 10, updates - 1):
                devtools.send("HeapProfiler.collectGarbage")
                heaps.append(page.evaluate("performance.memory.usedJSHeapSize") / 1e6)
        context.close()
    brought = [size for size in sizes if size > 1_000]
    return Live(
        wait_s=max(waits),
        refresh_kb=statistics.median(brought) / 1e3,
        largest_kb=max(brought) / 1e3,
        heap_start_mb=heaps[0],
        heap_end_mb=heaps[-1],
        updates=updates,
    )
