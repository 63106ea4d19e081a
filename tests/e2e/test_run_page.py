"""The run's page: what live news cost, what is visible at every zoom, keys alone, accessibility, states."""

import pytest
from e2e.axe import violations

from benchmarks.ui import live, visible
from trainvitals.app.store import Store
from trainvitals.app.web import frames

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MAP = "[data-figure=vitals]"
PAINTED = (
    "Object.fromEntries([...document.querySelectorAll('[data-painted]')]"
    ".map(e => [e.dataset.figure ?? e.dataset.key, Number(e.dataset.painted)]))"
)


def sizes_of(page, part):
    """Bytes of the bodies of answers whose address holds `part`, as they come."""
    found = []

    def note(response):
        if part in response.url:
            found.append(int(response.headers.get("content-length", 0)))

    page.on("response", note)
    return found


def test_a_step_without_samples_redraws_curves_and_not_the_map(open_page, grow):
    page = open_page("/runs/live")
    page.wait_for_timeout(300)
    before = page.evaluate(PAINTED)
    sizes = sizes_of(page, "/live?version=")
    grow(150)  # a sampled step
    open_page.until(page, "document.querySelector('[data-figure=loss]').data[0].x.at(-1) === 150")
    page.wait_for_timeout(300)
    sampled = page.evaluate(PAINTED)
    grow(151)
    open_page.until(page, "document.querySelector('[data-figure=loss]').data[0].x.at(-1) === 151")
    page.wait_for_timeout(300)
    after = page.evaluate(PAINTED)
    assert sampled["vitals"] > before["vitals"]
    assert after["vitals"] == sampled["vitals"]
    assert after["loss"] > sampled["loss"]
    assert after["val/accuracy"] >= sampled["val/accuracy"]
    assert 0 < max(sizes) <= 20_000


def test_the_curves_of_a_live_page_are_those_of_a_page_opened_later(open_page, grow):
    page = open_page("/runs/live")
    for step in range(150, 170):
        grow(step)
    curve = (
        "[...document.querySelector('[data-figure=loss]').data].map(t => "
        "[Array.from(t.x), Array.from(t.y, v => Number.isNaN(v) ? null : v)])"
    )
    open_page.until(page, "document.querySelector('[data-figure=loss]').data[0].x.at(-1) === 169")
    later = open_page("/runs/live")
    assert page.evaluate(curve) == later.evaluate(curve)
    codes = f"document.querySelector('{MAP} canvas').ariaLabel"
    assert page.evaluate(codes) == later.evaluate(codes)


def test_a_map_from_before_the_charts_is_brought_up_to_date(open_page, site, grow):
    """Charts and map are asked for one by one, of two workers: no more comes, and the page still has all of it."""
    page = open_page("/runs/live")
    before = page.request.get(f"{site.url}/api/v1/runs/live/map?statistic=vitals").body()
    grow(150)  # a sampled step
    page.route(
        "**/map?*", lambda route: route.fulfill(body=before, content_type="application/json")
    )
    page.reload()
    page.wait_for_selector("body[data-drawn='0']")
    assert "sampled up to step 148 of 150" in page.inner_text("#map-hint")
    open_page.until(
        page, "!document.querySelector('#map-hint').innerText.includes('sampled up to')"
    )
    assert "12 layers" in page.inner_text("#map-hint")


def test_a_page_that_stays_open_does_not_grow(open_page, grow, monkeypatch):
    """`make bench-ui` has an hour of it; here are 60 refreshes, of which the first 20 make what stays."""
    monkeypatch.setattr(frames, "FRAME_S", 0.0)
    page = open_page("/runs/live")
    page.context.add_init_script(live.HURRY)
    page.reload()
    page.wait_for_selector("body[data-drawn]")
    tools = page.context.new_cdp_session(page)
    nodes, listeners, heaps = [], [], []
    for step in range(150, 211):
        if step in (170, 190, 210):
            tools.send("HeapProfiler.collectGarbage")
            counted, used = tools.send("Memory.getDOMCounters"), tools.send("Runtime.getHeapUsage")
            nodes.append(counted["nodes"])
            listeners.append(counted["jsEventListeners"])
            heaps.append(used["usedSize"] + used["backingStorageSize"])
        grow(step)
        open_page.until(page, f"({live.LAST}) >= {step}")
    assert len(set(listeners)) == 1
    assert max(nodes) <= min(nodes) + 100  # less than two for each refresh
    assert max(heaps) < 1.2 * min(heaps)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """A run of 12,000 steps with one step that spikes and one that is NaN, in one layer each."""
    from benchmarks.ui.data import Shape, Stream

    path = tmp_path_factory.mktemp("long") / "runs.db"
    shape = Shape(10, 12_000)
    with Store.open(path) as store:
        for batch in Stream(shape).all():
            store.append(batch, 1.7e9)
    return path, shape


@pytest.mark.parametrize("width", [1440, 400])
def test_one_spike_and_one_nan_are_seen_at_every_zoom(open_page, serve, long_run, width):
    path, shape = long_run
    site = serve(path)
    for span in (None, 3000, 200):
        for step, nonfinite in ((shape.broken, True), (shape.spike, False)):
            part = "" if span is None else f"?s={step - span // 2}-{step + span // 2}"
            page = open_page(f"/runs/{shape.id}{part}", base=site.url, width=width)
            page.wait_for_timeout(200)
            assert visible.shown_in_map(page, nonfinite), (span, step)
            assert visible.shown_in_loss(page, step, nonfinite, 40), (span, step)
            page.context.close()


def test_a_map_of_many_layers_starts_folded_and_finds_layers(open_page, serve, tmp_path):
    from benchmarks.ui.data import Shape, Stream

    shape = Shape(600, 40)
    with Store.open(tmp_path / "many.db") as store:
        for batch in Stream(shape).all():
            store.append(batch, 1.7e9)
    site = serve(tmp_path / "many.db")
    page = open_page(f"/runs/{shape.id}", base=site.url)
    assert page.locator(MAP).bounding_box()["height"] < 1300
    page.fill("#map-search", "blocks.77.mlp.fc1")
    box = page.locator(MAP).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    page.wait_for_url("**/layers/blocks.77.mlp.fc1*")


def test_the_run_page_is_usable_by_keyboard_alone(open_page):
    page = open_page("/runs/sick")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.figure") == "vitals":
            break
    assert page.evaluate("document.activeElement.dataset.figure") == "vitals"
    for _ in range(7):
        page.keyboard.press("ArrowDown")
    assert "block2.conv1" in page.inner_text("#announce")
    assert "NaN or infinity" in page.inner_text("#announce")
    page.keyboard.press("Enter")
    page.wait_for_url("**/layers/block2.conv1")
    page.wait_for_selector("body[data-drawn]")
    page.keyboard.press("Escape")
    page.wait_for_url("**/runs/sick")
    page.wait_for_selector("body[data-drawn]")
    page.keyboard.press("+")
    open_page.until(page, "new URLSearchParams(location.search).has('s')")
    page.keyboard.press("z")
    open_page.until(page, "!new URLSearchParams(location.search).has('s')")


def test_a_link_restores_the_view(open_page):
    address = "/runs/sick?m=std&s=200-380&q=block2&o=worst&smooth=90&y=log&x=time"
    page = open_page(address)
    page.wait_for_timeout(300)
    assert page.evaluate("document.querySelector('[data-statistic=std]').ariaPressed") == "true"
    assert page.input_value("#map-search") == "block2"
    assert page.get_attribute("#map-worst", "aria-pressed") == "true"
    assert [page.input_value(f"#{name}") for name in ("smooth", "scale", "unit")] == [
        "90",
        "log",
        "time",
    ]
    assert page.evaluate("document.querySelector('[data-figure=loss]').layout.yaxis.type") == "log"
    assert page.evaluate("document.querySelector('[data-figure=loss]').layout.xaxis.range") == [
        200,
        381,
    ]
    assert page.url.endswith(address)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "path",
    [
        "/runs/sick",
        "/runs/healthy",
        "/runs/young",
        "/runs/sick/layers/block2.conv1",
        "/runs/sick/model",
    ],
)
def test_axe_finds_nothing(open_page, path, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(path, theme=theme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    found = axe.run(page).response["violations"]
    assert [(item["id"], [node["html"][:160] for node in item["nodes"]]) for item in found] == []


def test_the_large_view_needs_no_inline_style(open_page):
    page = open_page("/runs/sick")
    page.click("section[aria-labelledby=loss-title] [data-explore]")
    open_page.until(page, "!!document.querySelector('#explorer .main-svg')")
    assert (
        page.evaluate("getComputedStyle(document.querySelector('#explorer .main-svg')).position")
        == "absolute"
    )
    header = page.evaluate("fetch('/').then(r => r.headers.get('Content-Security-Policy'))")
    assert "unsafe-inline" not in header


def test_a_server_that_goes_away_keeps_the_picture_and_says_so(open_page, site):
    page = open_page("/runs/live")
    page.route("**/live?**", lambda route: route.abort())
    page.wait_for_selector("#offline:not([hidden])")
    assert page.evaluate("document.querySelector('[data-figure=loss]').data[0].x.length") > 100
    page.unroute("**/live?**")
    page.wait_for_selector("#offline", state="hidden")
    open_page.trouble[:] = [line for line in open_page.trouble if "ERR_FAILED" not in line]


def test_axe_finds_nothing_in_what_opens_over_a_page(open_page):
    page = open_page("/runs/sick")
    for opener, opened in (
        ("#help-open", "#help"),
        ("#export-open", "#export"),
        ("#compare-with", "#compare-dialog"),
        (".card.map [data-table]", "#table"),
    ):
        page.click(opener)
        page.wait_for_selector(f"{opened}[open]")
        assert (opened, violations(page)) == (opened, [])
        page.keyboard.press("Escape")
    page.goto(page.url.partition("/runs")[0])
    page.click(".syntax summary")
    assert violations(page) == []


def test_a_healthy_run_says_so_in_a_line_and_shows_its_charts(open_page):
    page = open_page("/runs/healthy")
    assert page.locator("#findings").bounding_box()["height"] < 60
    assert page.locator("[data-figure=loss]").bounding_box()["width"] > 1200
    assert "checks found nothing wrong" in page.inner_text(".verdict h1")
    told = page.inner_text("#map-told")
    assert told == "12 layers: all within their healthy bands."
    assert not page.locator("details.checked").evaluate("e => e.open")


@pytest.mark.parametrize("width", [700, 1000, 1200, 1440])
def test_the_bar_of_the_loss_stays_one_line(open_page, width):
    page = open_page("/runs/sick", width=width)
    assert (
        page.locator("section[aria-labelledby=loss-title] > header").bounding_box()["height"] < 50
    )


def test_steps_since_the_last_sample_are_told_apart_from_healthy_ones(open_page, site, grow):
    page = open_page("/runs/live")
    assert "sampled" not in page.inner_text("#map-hint")
    site.live.every = 10_000  # no sample any more
    for step in range(150, 200):
        grow(step)
    open_page.until(page, "document.querySelector('#map-hint').innerText.includes('of 199')")
    assert "sampled up to step 148" in page.inner_text("#map-hint")
    later = open_page("/runs/live")
    open_page.until(later, "document.querySelector('#map-hint').innerText.includes('of 199')")
    grey = visible.map_colours(later).get((211, 216, 222), 0)
    assert grey > 500
