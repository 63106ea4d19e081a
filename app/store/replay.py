"""Records as they came in, for the rules."""

import sqlite3
from collections.abc import Iterator, Mapping

import msgspec

from trainvitals.app.store.append import REFERENCE, log_decoder
from trainvitals.app.store.compression import decompress
from trainvitals.app.store.read import Records
from trainvitals.app.store.types import Stream
from trainvitals.hooks.wire.records import Record, Sample, Scalars, Step


def replay(
    connection: sqlite3.Connection, run_id: str, cursor: Mapping[str, int], limit: int
) -> list[tuple[Stream, Record]]:
    """The next records from `cursor` on, until there are `limit` or more steps; see `Store.replay`."""
    found: list[tuple[Stream, Record]] = []
    left = limit
    records = Records(connection)
    for key, attempt, rank, after in connection.execute(
        "SELECT s.key, s.attempt, s.rank, s.next FROM streams s JOIN runs r ON r.key = s.run "
        "WHERE r.id = ? ORDER BY s.attempt, s.rank",
        (run_id,),
    ).fetchall():
        stream = Stream(attempt, rank)
        first = cursor.get(stream.key, 0)
        if first >= after:
            continue
        for record in _logged(connection, key, first):
            if left <= 0:
                return found
            left -= _weight(record)
            whole = _filled(record, records) if rank == 0 and isinstance(record, Step) else record
            found.append((stream, whole))
    return found


def _weight(record: Record) -> int:
    """How many records it counts for: scalars for as many steps as they hold, which are judged one by one."""
    return max(len(record.steps) // 8, 1) if isinstance(record, Scalars) else 1


def _logged(connection: sqlite3.Connection, stream: int, first: int) -> Iterator[Record]:
    rows = connection.execute(
        "SELECT body FROM log WHERE stream = ? AND last >= ? ORDER BY last", (stream, first)
    )
    for (body,) in rows:
        for record in log_decoder.decode(decompress(body)):
            if record.seq >= first:
                yield record


def _filled(record: Step, records: Records) -> Step:
    """`record` with the values that its samples refer to."""
    if not record.samples:
        return record
    samples = []
    for sample in record.samples:
        key, number = REFERENCE.unpack(sample.values)
        _, values = records.read(records.group(key), number)
        samples.append(Sample(group=sample.group, values=values.tobytes()))
    return msgspec.structs.replace(record, samples=samples)
