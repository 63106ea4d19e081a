"""The same data in a row-per-value SQLite and in TensorBoard's event files, as much of it as they can hold in time."""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.store import data
from benchmarks.store.data import Size
from benchmarks.store.progress import Progress


@dataclass(frozen=True)
class Peer:
    """What another store took."""

    name: str
    size: Size
    """How much of the data it was given."""
    seconds: float
    """Processor time of writing it."""
    bytes: int
    scalar: float
    """Median milliseconds of the chart of one statistic of one layer, whole."""
    heatmap: float
    """The same of one statistic of all layers."""

    @property
    def rate(self) -> float:
        """Layer-steps for each second of processor time."""
        return self.size.layer_steps / self.seconds

    @property
    def layer_step_bytes(self) -> float:
        """Bytes of one row of statistics."""
        return self.bytes / self.size.layer_steps


def rows(folder: Path, size: Size, progress: Progress) -> Peer:
    """SQLite with one row a value, in the order in which a chart reads them; 400 buckets by GROUP BY."""
    path = folder / "rows.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE points (statistic INTEGER, layer INTEGER, step INTEGER, value REAL, "
        "PRIMARY KEY (statistic, layer, step)) WITHOUT ROWID"
    )
    places = np.indices((size.statistics, size.layers)).reshape(2, -1).tolist()
    begin, step = time.process_time(), 0
    for chunk in data.values(size):
        for sample in chunk.transpose(0, 2, 1):
            flat = sample.reshape(-1).tolist()
            with connection:
                connection.executemany(
                    "INSERT INTO points VALUES (?, ?, ?, ?)",
                    zip(*places, [step] * len(flat), flat, strict=True),
                )
            step += 1
            progress.show("a row a value", step / size.steps)
    spent = time.process_time() - begin
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    width = max(1, size.steps // 400)
    query = (
        "SELECT layer, step / ?, MIN(value), MAX(value), AVG(value) FROM points WHERE statistic = 3"
    )
    scalar = _median(
        lambda: connection.execute(
            f"{query} AND layer = 7 GROUP BY layer, step / ?", (width, width)
        ).fetchall()
    )
    heatmap = _median(
        lambda: connection.execute(f"{query} GROUP BY layer, step / ?", (width, width)).fetchall()
    )
    connection.close()
    return Peer("SQLite, a row a value", size, spent, path.stat().st_size, scalar, heatmap)


def tensorboard(folder: Path, size: Size, progress: Progress) -> Peer:
    """TensorBoard's own writer of event files, a tag for each statistic of each layer, and its server over HTTP."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    where = folder / "events" / "main"
    writer = EventFileWriter(str(where))
    tags = [
        f"{data.layer(layer)}/{data.statistic(statistic)}"
        for layer in range(size.layers)
        for statistic in range(size.statistics)
    ]
    begin, step = time.process_time(), 0
    for chunk in data.values(size):
        for sample in chunk.reshape(len(chunk), -1).tolist():
            found = [
                Summary.Value(tag=tag, simple_value=value)
                for tag, value in zip(tags, sample, strict=True)
            ]
            writer.add_event(
                Event(wall_time=data.TIME + step, step=step, summary=Summary(value=found))
            )
            step += 1
            progress.show("TensorBoard", step / size.steps)
    writer.close()
    spent = time.process_time() - begin
    written = sum(file.stat().st_size for file in where.iterdir())
    column = [tag for tag in tags if tag.endswith("/" + data.statistic(3))]
    with _served(folder / "events") as address:
        _wait(address, column[-1], size.steps)
        scalar = _median(lambda: _scalar(address, column[7]))
        heatmap = _median(lambda: [_scalar(address, tag) for tag in column], 3)
    return Peer("TensorBoard", size, spent, written, scalar, heatmap)


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--port", str(port), "--samples_per_plugin", "scalars=100000"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def _scalar(address: str, tag: str) -> int:
    """How many points of a tag the server gives."""
    asked = urllib.parse.urlencode({"run": "main", "tag": tag})
    with urllib.request.urlopen(f"{address}/data/plugin/scalars/scalars?{asked}") as answer:
        return answer.read().count(b"],") + 1


def _wait(address: str, tag: str, steps: int, timeout_s: float = 300.0) -> None:
    """Until the server has read the event files. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if _scalar(address, tag) >= steps:
                return
        time.sleep(0.5)
    raise TimeoutError(f"TensorBoard did not load {steps:,} steps in {timeout_s:.0f} s.")


def _median(read: Callable[[], object], repeats: int = 5) -> float:
    """Milliseconds, after one answer that does not count."""
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        read()
        times.append((time.perf_counter() - begin) * 1e3)
    return float(np.median(times[1:]))
