"""Pictures of every page and state: `make screenshots` keeps them."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = {
    "runs": "/",
    "run-healthy": "/runs/healthy",
    "run-sick": "/runs/sick",
    "run-live": "/runs/live",
    "run-young": "/runs/young",
    "layer-sick": "/runs/sick/layers/block2.conv1",
    "layer-healthy": "/runs/healthy/layers/block1.relu1",
    "compare": "/compare?runs=sick,healthy,live",
    "alerts": "/alerts",
    "settings": "/settings",
    "error": "/runs/none",
    "login": "/login",
}
LOOKS = {"light": (1440, "light"), "dark": (1440, "dark"), "narrow": (400, "light")}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_drawn_and_fits(open_page, pictures, look):
    width, theme = LOOKS[look]
    for name, path in PAGES.items():
        page = open_page(path, width=width, theme=theme, drawn=name not in ("error", "login"))
        open_page.until(page, "!document.querySelector('[data-skeleton]')")
        page.screenshot(path=pictures / f"{name}-{look}.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} scrolls sideways: {wide} px"
        page.context.close()
    # the browser reports the status of the error page itself
    open_page.trouble[:] = [line for line in open_page.trouble if "404" not in line]


def test_without_runs_the_page_says_what_to_do(chromium, serve, pictures, tmp_path):
    empty = serve(tmp_path / "empty.db")
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.goto(empty.url)
    page.wait_for_selector("body[data-drawn]")
    assert "tv.watch(model, optimizer)" in page.inner_text("#none")
    page.screenshot(path=pictures / "runs-empty-light.png")
    page.close()
