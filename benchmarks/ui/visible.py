"""Whether one step that spikes and one that is NaN can be seen in a run's charts, at any zoom."""

from collections.abc import Sequence

import numpy as np
from playwright.sync_api import Browser, Page

from benchmarks.ui.browser import until
from benchmarks.ui.data import Shape

ZOOMS = (None, 20_000, 2_000, 200)
"""Steps around the one that is looked for; None for all of the run."""
NAN = (181, 0, 126)
"""The colour of NaN in the light theme."""
MARKS = (
    "document.querySelector('[data-figure=loss]').data.filter(t => t.mode === 'markers')"
    ".flatMap(t => Array.from(t.x, x => [t.name, x]))"
)
PIXELS = """() => {
    const canvas = document.querySelector('[data-figure=vitals] canvas');
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const found = {};
    const data = copy.getImageData(0, 0, canvas.width, canvas.height).data;
    for (let k = 0; k < data.length; k += 4) {
        const name = `${data[k]},${data[k + 1]},${data[k + 2]}`;
        found[name] = (found[name] ?? 0) + 1;
    }
    return found;
}"""


def map_colours(page: Page) -> dict[tuple[int, ...], int]:
    """How many pixels of the map have which colour."""
    found = page.evaluate(PIXELS)
    return {tuple(map(int, name.split(","))): count for name, count in found.items()}


def shown_in_map(page: Page, nonfinite: bool) -> bool:
    """Whether the map has a mark of NaN, or a cell that is far too large, that can be told from the rest."""
    colours = map_colours(page)
    if nonfinite:
        return colours.get(NAN, 0) >= 3
    return any(c[0] > 190 and c[0] > c[1] + 60 > c[2] for c in colours)


def shown_in_loss(page: Page, step: int, nonfinite: bool, near: float) -> bool:
    """Whether the loss has a mark of it at most `near` steps away, as far as a bucket is wide."""
    wanted = "NaN or Inf" if nonfinite else "spike"
    return any(name == wanted and abs(x - step) <= near for name, x in page.evaluate(MARKS))


def missed(
    browser: Browser, address: str, shape: Shape, zooms: Sequence[int | None] = ZOOMS
) -> list[str]:
    """The views of a run in which its spike or its NaN is not to be seen; empty where all show them."""
    found = []
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    for zoom in zooms:
        for step, nonfinite in ((shape.spike, False), (shape.broken, True)):
            page = context.new_page()
            part = "" if zoom is None else f"?s={step - zoom // 2}-{step + zoom // 2}"
            page.goto(f"{address}/runs/{shape.id}{part}")
            until(
                page,
                "['loss', 'vitals'].every(n => document.querySelector(`[data-figure=${n}][data-painted]`))",
            )
            page.wait_for_timeout(200)
            near = 2 * np.ceil((zoom or shape.steps) / 400)
            what = "NaN" if nonfinite else "spike"
            where = f"{what} at {'all steps' if zoom is None else f'{zoom:,} steps'}"
            if not shown_in_map(page, nonfinite):
                found.append(f"{where}: not in the map")
            if not shown_in_loss(page, step, nonfinite, near):
                found.append(f"{where}: not in the loss")
            page.close()
    context.close()
    return found
