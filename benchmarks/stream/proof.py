"""Whether a database holds what was sent: every record once, in order, unchanged, and summaries that fit them."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from trainvitals.app.diagnose import diagnose
from trainvitals.app.store import Store
from trainvitals.app.store.audit import audit
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.records import Record, Step


def stored(store: Store, run: str) -> dict[str, list[Record]]:
    """All records of a run by stream ("attempt/rank"), in the order in which the store gives them."""
    found: dict[str, list[Record]] = {}
    cursor: dict[str, int] = {}
    while batch := store.replay(run, cursor, 2000):
        for stream, record in batch:
            cursor[stream.key] = record.seq + 1
            found.setdefault(stream.key, []).append(record)
    return found


def kept(payload: bytes) -> bytes:
    """What the store replays of an encoded record: all but its histograms."""
    record = codec.decode_record(payload)
    if isinstance(record, Step):
        record = msgspec.structs.replace(record, histograms=[])
    return codec.encode_record(record)


def compare(
    records: list[Record], payload: Callable[[int], bytes], acknowledged: int, where: str
) -> list[str]:
    """What is wrong with the stored `records` of a stream whose record n was sent as `payload(n)`."""
    numbers = [record.seq for record in records]
    wrong = []
    if len(set(numbers)) < len(numbers):
        wrong.append(f"{where}: {len(numbers) - len(set(numbers))} records are doubled")
    if sorted(set(numbers)) != list(range(len(set(numbers)))):
        wrong.append(f"{where}: records are missing in between")
    if len(numbers) < acknowledged:
        wrong.append(f"{where}: {acknowledged} acknowledged, {len(numbers)} stored")
    changed = sum(codec.encode_record(item) != kept(payload(item.seq)) for item in records)
    if changed:
        wrong.append(f"{where}: {changed} records are not what was sent")
    return wrong


def sound(database: Path) -> list[str]:
    """What is wrong with a database as such: its pages, its summaries, its findings."""
    connection = sqlite3.connect(database)
    try:
        (said,) = connection.execute("PRAGMA integrity_check").fetchone()
        wrong = [] if said == "ok" else [f"integrity_check: {said}"]
        runs = [run for (run,) in connection.execute("SELECT id FROM runs").fetchall()]
        for run in runs:
            wrong += [f"{run}: {line}" for line in audit(connection, run)]
    finally:
        connection.close()
    return wrong


def judged(database: Path, runs: list[str]) -> list[str]:
    """Runs whose findings are not those of an evaluation that nothing ever interrupted."""
    with Store.open(database) as store:
        return [
            f"{run}: other findings than without kills"
            for run in runs
            if store.findings(run) != diagnose(run, database)
        ]
