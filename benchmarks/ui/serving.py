"""A server of its own for the benchmark, on a database of made-up runs."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ui.data import BATCH, Shape, Stream
from trainvitals.app.evaluator import Evaluator
from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.app.web.metrics import SHARED

JUDGED_UP_TO = 1_000_000
"""Layers times steps up to which the rules judge a run before it is shown; larger ones take minutes."""
TOLD_EVERY_S = 10.0


def fill(path: Path, shapes: Sequence[Shape], tell: Callable[[str], None]) -> None:
    """Write finished runs into the database `path`, those that are not in it yet; `tell` is told how far it is."""
    with Store.open(path) as store:
        for shape in shapes:
            if store.run(shape.id) is None:
                _write(store, shape, tell)
    if all(shape.layers * shape.steps <= JUDGED_UP_TO for shape in shapes):
        evaluator = Evaluator(path, Settings(database=path))
        while evaluator.tick(time.time()):
            pass
        evaluator.close()


def _write(store: Store, shape: Shape, tell: Callable[[str], None]) -> None:
    begin, told = time.monotonic(), 0.0
    for count, batch in enumerate(Stream(shape).all()):
        store.append(batch, 1.7e9)
        if time.monotonic() - told > TOLD_EVERY_S:
            told = time.monotonic()
            tell(f"  writing {shape.label}: {100 * count * BATCH / shape.steps:.0f} %")
    tell(f"  writing {shape.label}: {time.monotonic() - begin:.0f} s")


def fill_list(path: Path, runs: int) -> None:
    """Write `runs` small finished runs into the database `path`."""
    shape = Shape(4, 40)
    with Store.open(path) as store:
        for number in range(runs):
            for batch in Stream(shape, run=f"small-{number}", time=1.7e9 + number).all():
                store.append(batch, 1.7e9)


@contextmanager
def serving(path: Path, *more: str) -> Iterator[str]:
    """The address of a server for the database `path`, while the block runs; `more`: options of `alone`."""
    command = [sys.executable, "-m", "benchmarks.ui.alone", str(path), *more]
    with tempfile.TemporaryDirectory() as counts:
        environment = os.environ | {SHARED: counts}
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            address = server.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"The server ended with status {server.wait()}.")
            _wait(f"{address}/healthz")
            yield address
        finally:
            server.terminate()
            server.wait(20)


def _wait(address: str) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"The server does not answer at {address}.")
