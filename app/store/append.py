"""Taking batches in: all of a batch, with the mark of how far its stream is, in one transaction."""

import sqlite3
import struct
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from trainvitals.app.store import bars, catalog, compaction, groups, tiles
from trainvitals.app.store.compression import compress, decompress
from trainvitals.app.store.connection import Database
from trainvitals.app.store.groups import Group
from trainvitals.app.store.types import InvalidRecord, Receipt, RunDeleted, SequenceGap
from trainvitals.hooks.wire.codec import WireError, unpack_counts
from trainvitals.hooks.wire.records import (
    Batch,
    End,
    Event,
    Histograms,
    Layout,
    Record,
    Sample,
    Scalars,
    Start,
    Step,
)
from trainvitals.hooks.wire.scalars import unpack

LOOSE: Final = 256
"""Records of a stream that are gathered before small rows of its log become one."""

REFERENCE: Final = struct.Struct("<qq")
"""What the log keeps of a sample: the key of its group and its number there."""

_Row = tuple[int, dict[str, float]]

_encoder = msgspec.msgpack.Encoder()
log_decoder = msgspec.msgpack.Decoder(list[Record])


def append(database: Database, batch: Batch, received: float) -> Receipt:
    """Store what is new of `batch`, which came at `received` (Unix seconds).

    Raises SequenceGap, InvalidRecord, RunDeleted (which leave everything as it was), StoreError.
    """
    for offset, record in enumerate(batch.records):
        if record.seq != batch.first + offset:
            raise InvalidRecord(
                f"Record {offset} has sequence number {record.seq}; expected {batch.first + offset}."
            )
    with database.write() as connection:
        if catalog.is_deleted(connection, batch.run):
            raise RunDeleted(
                f"Run {batch.run!r} was deleted on this server, which takes nothing more of it."
            )
        expected = catalog.next_seq(connection, batch.run, batch.attempt, batch.rank)
        if batch.records and batch.first > expected:
            raise SequenceGap(expected)
        records = batch.records[expected - batch.first :] if batch.records else []
        if records:
            _Appender(connection, batch, expected, received).store(records)
        catalog.touch(connection, batch, received, changed=bool(records))
        return Receipt(expected + len(records), len(records))


@dataclass(slots=True)
class _New:
    """Records of a group, to go into its tail."""

    group: Group
    steps: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    scalars: list[dict[int, float]] = field(default_factory=list)


class _Appender:
    """Stores records of one stream, within a transaction."""

    def __init__(
        self, connection: sqlite3.Connection, batch: Batch, expected: int, received: float
    ) -> None:
        self._connection = connection
        self._batch = batch
        self._expected = expected
        self._received = received
        self._charted = batch.rank == 0
        self._stream = 0
        self._run = 0
        self._groups: dict[int, Group] = {}
        self._new: dict[int, _New] = {}
        self._names: dict[str, int] = {}
        self._steps: list[int] = []

    def store(self, records: list[Record]) -> None:
        """Store `records`, which are the next ones of the stream."""
        if self._expected == 0:
            if not isinstance(records[0], Start):
                raise InvalidRecord("Record 0 is no start record; a stream begins with one.")
            catalog.start(self._connection, self._batch, records[0], self._received)
        found = catalog.stream(
            self._connection, self._batch.run, self._batch.attempt, self._batch.rank
        )
        self._run, self._stream = found
        self._groups = groups.newest(self._connection, self._stream)
        if self._charted:
            self._names = catalog.names(self._connection, self._run)
        kept = []
        for record in records:
            try:
                kept.append(self._take(record))
            except InvalidRecord as error:
                raise InvalidRecord(f"Record {record.seq}: {error}") from None
        for new in self._new.values():
            self._flush(new)
        self._log(kept)
        self._mark(records)

    def _take(self, record: Record) -> Record:
        """Store a record; what the log shall keep of it."""
        match record:
            case Start():
                if record.seq != 0:
                    raise InvalidRecord("A second start record.")
            case Layout():
                self._groups[record.group] = groups.lay_out(
                    self._connection, self._stream, self._groups.get(record.group), record
                )
            case Step():
                return self._take_step(record)
            case Scalars():
                self._take_scalars(_rows(record))
            case Event():
                self._connection.execute(
                    "INSERT INTO events (stream, seq, step, body) VALUES (?, ?, ?, ?)",
                    (self._stream, record.seq, record.step, _encoder.encode(record)),
                )
                if record.kind == "config" and self._charted:
                    catalog.configure(self._connection, self._run, record.data)
            case End():
                self._connection.execute(
                    "UPDATE streams SET end_status = ?, end_message = ? WHERE key = ?",
                    (record.status, record.message, self._stream),
                )
        return record

    def _take_step(self, record: Step) -> Step:
        self._steps.append(record.step)
        for histograms in record.histograms:
            self._take_histograms(record, histograms)
        for sample in record.samples:
            group = self._known(sample.group)
            size = 4 * group.rows * group.columns
            if len(sample.values) != size:
                raise InvalidRecord(
                    f"A sample of group {sample.group} ({group.rows} rows × {group.columns} columns) "
                    f"has {size} bytes; got {len(sample.values)}."
                )
        if not self._charted:
            return msgspec.structs.replace(record, histograms=[]) if record.histograms else record
        self._chart([(record.step, record.scalars)])
        references = []
        for sample in record.samples:
            group = self._known(sample.group)
            new = self._of(group)
            number = group.count + len(new.steps)
            new.steps.append(record.step)
            new.values.append(sample.values)
            references.append(Sample(group=sample.group, values=REFERENCE.pack(group.key, number)))
        return Step(
            seq=record.seq,
            time=record.time,
            step=record.step,
            scalars=record.scalars,
            samples=references,
            observed=record.observed,
        )

    def _take_scalars(self, rows: list[_Row]) -> None:
        self._steps += [step for step, _ in rows]
        if self._charted:
            self._chart(rows)

    def _chart(self, rows: list[_Row]) -> None:
        """Add scalars to the group that the charts are drawn from."""
        for step, scalars in rows:
            if scalars:
                new = self._of(self._scalars())
                new.steps.append(step)
                new.scalars.append({self._name(name): x for name, x in scalars.items()})

    def _take_histograms(self, record: Step, histograms: Histograms) -> None:
        group = self._known(histograms.group)
        packed = _pack_counts(histograms.counts, group.rows)
        if self._charted:
            self._connection.execute(
                "INSERT OR REPLACE INTO histograms (grp, kind, step, seq, body) VALUES (?, ?, ?, ?, ?)",
                (group.key, histograms.kind, record.step, record.seq, packed),
            )

    def _known(self, number: int) -> Group:
        try:
            return self._groups[number]
        except KeyError:
            known = ", ".join(str(n) for n in self._groups if n >= 0) or "none"
            raise InvalidRecord(
                f"Group {number} has no layout; groups with one: {known}. Send the layout first."
            ) from None

    def _scalars(self) -> Group:
        if groups.SCALARS not in self._groups:
            self._groups[groups.SCALARS] = groups.create_scalars(self._connection, self._stream)
        return self._groups[groups.SCALARS]

    def _of(self, group: Group) -> _New:
        if group.key not in self._new:
            self._new[group.key] = _New(group)
        return self._new[group.key]

    def _name(self, name: str) -> int:
        if name not in self._names:
            self._names[name] = catalog.add_name(self._connection, self._run, name)
        return self._names[name]

    def _flush(self, new: _New) -> None:
        body = tiles.pack_scalars(new.scalars) if new.scalars else b"".join(new.values)
        steps = np.array(new.steps, "<i8")
        compaction.extend(self._connection, new.group, steps, body)

    def _log(self, records: list[Record]) -> None:
        connection, stream = self._connection, self._stream
        (loose,) = connection.execute(
            "SELECT loose FROM streams WHERE key = ?", (stream,)
        ).fetchone()
        # Other ranks' samples stay in their records, which are few but may be large.
        gathers = self._charted and (loose + len(records) >= LOOSE)
        if gathers and loose and len(records) < LOOSE:
            records = self._gather(loose) + records
        elif gathers and loose:
            self._insert_log(self._gather(loose))
        self._insert_log(records)
        connection.execute(
            "UPDATE streams SET loose = ? WHERE key = ?",
            (0 if gathers or not self._charted else loose + len(records), stream),
        )

    def _gather(self, loose: int) -> list[Record]:
        where = (self._stream, self._expected - loose)
        rows = self._connection.execute(
            "SELECT body FROM log WHERE stream = ? AND last >= ? ORDER BY last", where
        ).fetchall()
        self._connection.execute("DELETE FROM log WHERE stream = ? AND last >= ?", where)
        return [record for (body,) in rows for record in log_decoder.decode(decompress(body))]

    def _insert_log(self, records: list[Record]) -> None:
        body = compress(_encoder.encode(records))
        self._connection.execute(
            "INSERT INTO log (stream, last, count, body) VALUES (?, ?, ?, ?)",
            (self._stream, records[-1].seq, len(records), body),
        )

    def _mark(self, records: list[Record]) -> None:
        low, high = (min(self._steps), max(self._steps)) if self._steps else (None, None)
        self._connection.execute(
            "UPDATE streams SET next = ?, "
            "first_step = MIN(COALESCE(first_step, ?), COALESCE(?, first_step)), "
            "last_step = MAX(COALESCE(last_step, ?), COALESCE(?, last_step)) WHERE key = ?",
            (records[-1].seq + 1, low, low, high, high, self._stream),
        )


def _rows(record: Scalars) -> list[_Row]:
    try:
        return list(unpack(record))
    except WireError as error:
        raise InvalidRecord(str(error)) from error


def _pack_counts(counts: bytes, rows: int) -> bytes:
    try:
        unpack_counts(counts, rows)  # tells every way in which they can be wrong
        return bars.pack(counts, rows)
    except WireError as error:
        raise InvalidRecord(str(error)) from error
