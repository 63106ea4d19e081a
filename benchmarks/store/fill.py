"""Fill a store, through what a server does with a batch that came in."""

import contextlib
import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.store import data
from benchmarks.store.data import Size
from benchmarks.store.progress import Progress
from trainvitals.app.store import Store
from trainvitals.app.store.migrations import MIGRATIONS
from trainvitals.hooks.wire.records import Batch
from trainvitals.hooks.wire.validate import validate_batch

BATCH = 64
"""Records in a batch."""
COMPARED = 20
"""Runs in the chart of one scalar of several runs."""

_decode = msgspec.msgpack.Decoder(Batch).decode


@dataclass(frozen=True)
class Filled:
    """A store, and what it took to fill it."""

    path: str
    size: Size
    runs: int
    append_seconds: float
    """Processor time of decoding, checking and storing the run with statistics."""
    total_seconds: float
    """From beginning to end, with making up the data and all other runs."""
    bytes: int
    """Of the file, once everything is in it."""
    histogram_bytes: float
    """Of one histogram of one layer, on average."""

    @property
    def rate(self) -> float:
        """Layer-steps for each second of processor time."""
        return self.size.layer_steps / self.append_seconds

    @property
    def layer_step_bytes(self) -> float:
        """Of one row of statistics with its share of all levels, of the log and of free pages; no histograms."""
        return (self.bytes - self.histogram_bytes * self.size.histograms) / self.size.layer_steps


def filled(path: Path, size: Size, runs: int, progress: Progress) -> Filled:
    """What `fill` gave for the store at `path`, which is filled unless it was so with this schema before."""
    note = path.with_suffix(".json")
    key = {"schema": len(MIGRATIONS), "size": msgspec.to_builtins(size), "runs": runs}
    if note.exists() and path.exists():
        held = json.loads(note.read_text())
        if held["key"] == key:
            progress.show(f"{path} is there already", 1.0)
            return msgspec.convert(held["filled"], Filled)
    for file in (note, path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)
    found = fill(path, size, runs, progress)
    note.write_text(json.dumps({"key": key, "filled": msgspec.to_builtins(found)}))
    return found


def fill(path: Path, size: Size, runs: int, progress: Progress) -> Filled:
    """A run "main" of that size, `COMPARED` runs with as many steps of one scalar, and short ones up to `runs`."""
    begin, spent = time.perf_counter(), 0.0
    with Store.open(path) as store:
        for batch in data.batches(size, "main", BATCH):
            raw = msgspec.msgpack.encode(batch)
            before = time.process_time()
            received = _decode(raw)
            validate_batch(received)
            store.append(received, data.TIME)
            spent += time.process_time() - before
            progress.show(
                f"{size.steps:,} steps", (batch.first + len(batch.records)) / (size.steps + 2)
            )
        alone = _size(path)
        for number in range(runs - 1):
            name, steps = f"run{number:04}", size.steps if number < COMPARED else 10
            for batch in data.scalar_batches(name, steps, number):
                store.append(batch, data.TIME)
            progress.show(f"{runs:,} runs", (number + 2) / runs)
        held = _histogram_bytes(path)
    total = time.perf_counter() - begin
    return Filled(str(path), size, runs, spent, total, alone, held / max(size.histograms, 1))


def _size(path: Path) -> int:
    """Bytes of the file once the write-ahead log is in it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def _histogram_bytes(path: Path) -> float:
    """Of all histograms, with what SQLite adds to a row of its own and to its index."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        count, body = connection.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM histograms"
        ).fetchone()
    return float(body + 60 * count)
