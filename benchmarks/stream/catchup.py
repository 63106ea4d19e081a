"""A client that was offline for hours comes back while live runs go on: what they notice, and how long it takes."""

import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stream.live import HISTORY, RATE, LiveRun, Times, feed, wait_until_judged
from benchmarks.stream.server import Server
from trainvitals.app.store import Store
from trainvitals.hooks import spool
from trainvitals.hooks.sender import sync

QUIET_S = 15.0
"""Without the client that catches up, for comparison."""
NUMBER = 99
"""Of the run that was offline."""


@dataclass(frozen=True)
class CaughtUp:
    """What came of it."""

    hours: float
    spooled: int
    """Bytes."""
    records: int
    quiet: tuple[float, float]
    """From when to when nobody caught up, by the monotonic clock of the machine."""
    busy: tuple[float, float]
    """And while somebody did."""
    times: Times
    wrong: list[str]


def measure(hours: float, *, history: int = HISTORY, quiet_s: float = QUIET_S) -> CaughtUp:
    """Deliver what a run recorded in so many hours. Raises RuntimeError when nothing gets going.

    history: steps of each live run before it. quiet_s: how long nobody catches up, for comparison.
    """
    context = multiprocessing.get_context("spawn")
    stop, warm, fed = context.Event(), context.Event(), context.Queue()
    with tempfile.TemporaryDirectory(prefix="trainvitals-") as folder:
        root = Path(folder) / ".trainvitals"
        stream, records = _record(root, hours)
        size = sum(path.stat().st_size for path in stream.glob("*.spool"))
        server = Server(Path(folder)).start()
        begin = time.time() - history / RATE
        feeder = context.Process(target=feed, args=(server.url, begin, stop, warm, fed))
        try:
            feeder.start()
            if not warm.wait(120):
                raise RuntimeError("the runs did not get going")
            wait_until_judged(server.url, 400)
            quiet = time.monotonic()
            time.sleep(quiet_s)
            start = time.monotonic()
            result = sync(root, server.url)
            end = time.monotonic()
            stop.set()
            times = fed.get(timeout=60)
            feeder.join()
            server.stop()
        finally:
            if feeder.pid:
                feeder.kill()
            if server.process is not None:
                server.kill()
        with Store.open(server.database) as store:
            stored = store.next_seq(spool.read_meta(stream).run, "a1", 0)
    wrong = [f"{stream}: {why}" for why in result.failed.values()]
    if stored != records:
        wrong.append(f"{records} records in the spool, {stored} in the database")
    return CaughtUp(hours, size, records, (quiet, start), (start, end), times, wrong)


def _record(root: Path, hours: float) -> tuple[Path, int]:
    """The spool of a run that went on for so many hours, and how many records it has."""
    run = LiveRun(NUMBER)
    steps, begin = int(hours * 3600 * RATE), time.time() - hours * 3600
    writer = spool.SpoolWriter(root, spool.Meta(run=run.run, attempt="a1", rank=0))
    while run.sent < steps + 3:
        payloads = run.payloads(min(run.sent + 1000, steps), begin)
        writer.append(payloads)
        run.sent += len(payloads)
    writer.close()
    return writer.folder, run.sent
