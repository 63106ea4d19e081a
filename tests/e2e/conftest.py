"""A server on a free port with four runs in its database, and Chromium."""

import os
import threading
import time
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.app.web import create_app

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def chromium():
    """A browser; the test is skipped where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


class Site:
    """A running server, and the store behind it."""

    def __init__(self, path, **settings):
        self.path = path
        app = create_app(Settings(database=path, **settings))
        self.app = app
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self._server.daemon_threads = False  # stop() waits for answers under way
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self):
        """Stop answering; what is stored stays."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.app.extensions["trainvitals_store"].close()


@pytest.fixture
def serve(tmp_path):
    """Start a server on the test's database (or the file given), with settings."""
    started = []

    def start(path=tmp_path / "trainvitals.db", **settings):
        started.append(Site(path, **settings))
        return started[-1]

    yield start
    for site in started:
        site.stop()


@pytest.fixture
def site(tmp_path, fill, made_run, serve):
    """A server with a healthy, a sick, a live and a just started run."""
    now = time.time()
    path = tmp_path / "trainvitals.db"
    fill(
        path,
        made_run("healthy", steps=600, name="resnet-adam-1e-3", start=now - 7200).end(),
        made_run("sick", steps=420, sick=True, name="resnet-high-lr", start=now - 4000).end(
            "failed", "RuntimeError: the loss is NaN"
        ),
    )
    live = made_run("live", steps=150, name="resnet-warm-up", start=now - 90)
    young = made_run("young", steps=6, name="just-started", start=now - 4)
    fill(path, live, young, received=now)
    made = serve(path)
    made.live = live
    return made


@pytest.fixture
def grow(site):
    """Send one more step of the live run."""
    store = Store.open(site.path)

    def send(step):
        store.append(site.live.grow(step), time.time())

    yield send
    store.close()


def until(page, expression):
    """Wait until `expression` holds in `page`; the browser's own waiting needs eval, which the pages forbid."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


@pytest.fixture
def open_page(chromium, site):
    """Open a page; afterwards check that nothing complained and nothing went to another host."""
    contexts, trouble, hosts = [], [], [site.url]

    def note(request):
        if not request.url.startswith((*hosts, "data:", "blob:")):
            trouble.append(f"asked another host: {request.url}")

    def message(entry):
        if entry.type in ("error", "warning"):
            trouble.append(f"{entry.type}: {entry.text}")

    def open_(path, *, width=1440, theme="light", base=None, drawn=True):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        contexts.append(context)
        hosts.append(base or site.url)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", note)
        page.on("console", message)
        page.on("pageerror", lambda error: trouble.append(f"page: {error}"))
        page.goto((base or site.url) + path)
        if drawn:
            page.wait_for_selector("body[data-drawn]")
        return page

    open_.trouble = trouble
    open_.until = until
    yield open_
    for context in contexts:
        context.close()
    assert trouble == []


@pytest.fixture
def pictures(request, tmp_path):
    """The folder for pictures: `--screenshots`, else a temporary one."""
    chosen = request.config.getoption("--screenshots")
    folder = Path(os.path.abspath(chosen)) if chosen else tmp_path / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
