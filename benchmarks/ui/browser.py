"""Chromium, and when something is on its screen."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
VIEWPORT: ViewportSize = {"width": 1440, "height": 900}
PATIENCE_S = 60.0
LOOK_S = 0.02
SELDOM_S = 0.25
"""Between two questions to a page that notes the time itself: each takes some from the page."""

# Notes when each chart was painted: the frame after the one in which the page said so.
WATCH = """
window.seen = {};
const note = (key) => {
  if (key in window.seen) return;
  window.seen[key] = null;
  requestAnimationFrame(() => setTimeout(() => { window.seen[key] = performance.now(); }));
};
new MutationObserver(() => {
  for (const { dataset } of document.querySelectorAll('[data-painted]')) note(dataset.figure ?? dataset.key);
}).observe(document, { subtree: true, attributes: true, attributeFilter: ['data-painted'] });
"""
LIST_WATCH = """
new MutationObserver((_, watch) => {
  if (!document.querySelector('#rows tr:not(.skeleton)')) return;
  watch.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.listed = performance.now(); }));
}).observe(document, { subtree: true, childList: true });
"""


@dataclass(frozen=True)
class Visit:
    """One visit of a page."""

    loss_s: float
    """From navigation until the loss is on screen."""
    map_s: float
    """Until the map of all layers is."""
    kilobytes: float
    """Transferred over the network, headers included."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a screen."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            with browser.new_context() as context:  # its own start is not what is measured
                context.new_page().goto("about:blank")
            yield browser
        finally:
            browser.close()


def until(
    page: Page, expression: str, patience_s: float = PATIENCE_S, every_s: float = LOOK_S
) -> Any:
    """The first true value of `expression` in `page`. The pages forbid eval, which Playwright's own waiting needs."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if value := page.evaluate(expression):
            return value
        time.sleep(every_s)
    raise RuntimeError(f"Never came true within {patience_s:.0f} s: {expression}")


def list_visit(browser: Browser, address: str) -> float:
    """Seconds from navigation with an empty cache until the list of runs is on screen."""
    context = browser.new_context(viewport=VIEWPORT)
    page = context.new_page()
    page.add_init_script(LIST_WATCH)
    page.goto(address, wait_until="commit")
    seconds = until(page, "window.listed", every_s=SELDOM_S) / 1e3
    context.close()
    return float(seconds)


def visit(context: BrowserContext, address: str) -> Visit:
    """Open a run's page and wait for its charts."""
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(address, wait_until="commit")
    both = "window.seen?.loss && window.seen?.vitals ? window.seen : null"
    seen = until(page, both, every_s=SELDOM_S)
    sizes = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".map((entry) => entry.transferSize)"
    )
    page.close()
    return Visit(seen["loss"] / 1e3, seen["vitals"] / 1e3, sum(sizes) / 1e3)


def first_visit(browser: Browser, address: str) -> Visit:
    """A visit with an empty cache."""
    with browser.new_context(viewport=VIEWPORT) as context:
        return visit(context, address)


def later_visits(browser: Browser, address: str, times: int) -> list[Visit]:
    """Visits with the cache of an earlier one."""
    with browser.new_context(viewport=VIEWPORT) as context:
        visit(context, address)
        return [visit(context, address) for _ in range(times)]


def middle(made: Sequence[Visit]) -> Visit:
    """The median of each figure."""
    names = Visit.__annotations__
    return Visit(*(statistics.median(getattr(item, name) for item in made) for name in names))
