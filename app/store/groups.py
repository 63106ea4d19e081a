"""Groups: their layouts, and the tail they grow by."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from trainvitals.app.store import pyramid, tiles
from trainvitals.app.store.types import InvalidRecord
from trainvitals.hooks.wire.records import Layout

SCALARS: Final = -1
"""Number of the group of a stream's scalars."""
BLOCK: Final = 256
"""Records that are compacted together, fewer for groups of very many rows."""
_BLOCK_VALUES: Final = 4 << 20
"""Values in a block at most, as far as it holds more than one node: bounds the memory that compaction takes."""

_FEW: Final = 8
"""A share of a record of less than 1 in so many is read on its own."""
_FROM: Final = "WHERE grp = ? AND first + count > ? ORDER BY first"
"""The pieces of a group's tail that have records from a number on."""

_decode_layout = lru_cache(16)(msgspec.msgpack.Decoder(Layout).decode)
"""Decoding one of 2,000 layers takes longer than to read their map."""


@dataclass(slots=True)
class Group:
    """A row of the table `groups`: a matrix that grows by one record a step, under one layout."""

    key: int
    number: int
    kind: str
    rows: int
    columns: int
    block: int
    count: int
    compacted: int
    layout_bytes: bytes | None

    @property
    def scalar(self) -> bool:
        """Whether it holds scalars: one row, columns by the key of their name."""
        return self.number == SCALARS

    @property
    def dtype(self) -> str:
        """numpy's name of its values' type."""
        return "<f8" if self.scalar else "<f4"

    def blocks(self, level: int) -> int:
        """How many whole blocks there are of `level`."""
        return self.compacted // self.block // pyramid.spread(level)

    def nodes(self, level: int) -> int:
        """Nodes in a block of `level`; of level 0 its records."""
        if level == 0:
            return self.block
        return pyramid.FIRST_SPAN * self.block // pyramid.FIRST_WIDTH

    @property
    def layout(self) -> Layout:
        """The layout, of a group that is not of scalars."""
        return _decode_layout(self.layout_bytes or b"")


FIELDS: Final = (
    "g.key, g.number, g.kind, g.rows, g.columns, g.block, g.count, g.compacted, g.layout"
)


def newest(connection: sqlite3.Connection, stream: int) -> dict[int, Group]:
    """The group that a stream's next sample of each number goes to."""
    rows = connection.execute(
        f"SELECT {FIELDS} FROM groups g WHERE g.stream = ? ORDER BY g.key", (stream,)
    )
    return {group.number: group for group in (Group(*row) for row in rows)}


def lay_out(
    connection: sqlite3.Connection, stream: int, current: Group | None, layout: Layout
) -> Group:
    """The group for samples after `layout`: `current` as long as its rows stay the same.

    Raises InvalidRecord when the columns or the kind differ from the current layout's.
    """
    body = msgspec.msgpack.encode(layout)
    if current is not None:
        held = current.layout
        if held.columns != layout.columns or held.kind != layout.kind:
            raise InvalidRecord(
                f"Group {layout.group} is of kind {held.kind} with {len(held.columns)} columns, which "
                "stay as they are. Use a new number for others."
            )
        if [row.name for row in held.rows] == [row.name for row in layout.rows]:
            connection.execute("UPDATE groups SET layout = ? WHERE key = ?", (body, current.key))
            current.layout_bytes = body
            return current
    size = len(layout.rows) * len(layout.columns)
    block = BLOCK
    while block > pyramid.FIRST_WIDTH and block * size > _BLOCK_VALUES:
        block //= 2
    return _create(
        connection,
        stream,
        Group(
            0, layout.group, layout.kind, len(layout.rows), len(layout.columns), block, 0, 0, body
        ),
    )


def create_scalars(connection: sqlite3.Connection, stream: int) -> Group:
    """The group for a stream's scalars."""
    return _create(connection, stream, Group(0, SCALARS, "scalar", 1, 0, BLOCK, 0, 0, None))


def _create(connection: sqlite3.Connection, stream: int, group: Group) -> Group:
    cursor = connection.execute(
        "INSERT INTO groups (stream, number, kind, layout, rows, columns, block) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            stream,
            group.number,
            group.kind,
            group.layout_bytes,
            group.rows,
            group.columns,
            group.block,
        ),
    )
    group.key = cursor.lastrowid or 0
    return group


def insert_tail(
    connection: sqlite3.Connection,
    group: Group,
    first: int,
    steps: npt.NDArray[np.int64],
    body: bytes,
) -> None:
    """Add records to the tail, of which the first is number `first` of the group."""
    connection.execute(
        "INSERT INTO tail (grp, first, count, steps, body) VALUES (?, ?, ?, ?, ?)",
        (group.key, first, len(steps), steps.astype("<i8").tobytes(), body),
    )


def note_size(connection: sqlite3.Connection, group: Group) -> None:
    """Keep `count` and `compacted`."""
    connection.execute(
        "UPDATE groups SET count = ?, compacted = ? WHERE key = ?",
        (group.count, group.compacted, group.key),
    )


@dataclass(frozen=True, slots=True)
class Tail:
    """The records of a group that are not in blocks yet."""

    steps: npt.NDArray[np.int64]
    """Shape (n,)."""
    values: npt.NDArray[np.float32]
    """Shape (n, rows, columns); empty for scalars."""
    record: npt.NDArray[np.int64]
    """For scalars: which record, which column, what value. Empty for others."""
    column: npt.NDArray[np.int64]
    scalar: npt.NDArray[np.float64]

    def after(self, count: int) -> "Tail":
        """Without its first `count` records."""
        if not count:
            return self
        kept = self.record >= count
        return Tail(
            self.steps[count:],
            self.values[count:],
            self.record[kept] - count,
            self.column[kept],
            self.scalar[kept],
        )

    def scalars_of(self, column: int) -> npt.NDArray[np.float64]:
        """Values of one scalar, shape (1, n)."""
        chosen = self.column == column
        dense = np.full((1, len(self.steps)), tiles.MISSING["<f8"])
        dense[0, self.record[chosen]] = self.scalar[chosen]
        return dense


def tail_steps(connection: sqlite3.Connection, group: Group) -> npt.NDArray[np.int64]:
    """The steps of the records that are not in blocks yet; shape (n,)."""
    rows = connection.execute(
        "SELECT steps FROM tail WHERE grp = ? ORDER BY first", (group.key,)
    ).fetchall()
    return np.frombuffer(b"".join(row[0] for row in rows), "<i8").astype(np.int64)


def tail_rows(
    connection: sqlite3.Connection, group: Group, first: int, rows: slice, columns: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Some rows and columns of the tail from record `first` on; shape (n, rows, columns). Of no scalars."""
    line = 4 * group.columns
    size, low, high = line * group.rows, line * rows.start, line * rows.stop
    parts = [np.empty((0, rows.stop - rows.start, len(columns)), np.float32)]
    chosen = list(columns)
    few = _FEW * (high - low) < size  # then read no more than them: the tail has up to some MiB
    column = "rowid" if few else "body"
    for begin, count, held in connection.execute(
        f"SELECT first, count, {column} FROM tail {_FROM}", (group.key, first)
    ):
        skipped = max(first - begin, 0)
        if few:
            with connection.blobopen("tail", "body", held, readonly=True) as blob:
                pieces = []
                for record in range(skipped, count):
                    blob.seek(record * size + low)
                    pieces.append(blob.read(high - low))
                data = b"".join(pieces)
            values = np.frombuffer(data, "<f4").reshape(count - skipped, -1, group.columns)
        else:
            shape = (count, group.rows, group.columns)
            values = np.frombuffer(held, "<f4").reshape(shape)[skipped:, rows]
        parts.append(values[:, :, chosen])
    return np.concatenate(parts)


def newest_record(
    connection: sqlite3.Connection, group: Group
) -> tuple[int, npt.NDArray[np.float32]] | None:
    """The step and the values, shape (rows, columns), of the last record in the tail; None where it is empty."""
    row = connection.execute(
        "SELECT steps, body FROM tail WHERE grp = ? ORDER BY first DESC LIMIT 1", (group.key,)
    ).fetchone()
    if row is None:
        return None
    values = np.frombuffer(row[1], "<f4").reshape(-1, group.rows, group.columns)
    return int(np.frombuffer(row[0], "<i8")[-1]), values[-1]


def read_tail(connection: sqlite3.Connection, group: Group, first: int = 0) -> Tail:
    """The tail of `group`, from its record `first` on."""
    rows = connection.execute(
        f"SELECT first, count, steps, body FROM tail {_FROM}", (group.key, first)
    ).fetchall()
    tail = parse_tail(group, [row[1:] for row in rows])
    return tail.after(max(first - rows[0][0], 0)) if rows else tail


def parse_tail(group: Group, rows: list[tuple[int, bytes, bytes]]) -> Tail:
    """A tail of pieces in their order: how many records, their steps, their values."""
    steps = np.frombuffer(b"".join(row[1] for row in rows), "<i8").astype(np.int64)
    no_index, no_scalars = np.empty(0, np.int64), np.empty(0, np.float64)
    if not group.scalar:
        values = np.frombuffer(b"".join(row[2] for row in rows), "<f4")
        shaped = values.reshape(len(steps), group.rows, group.columns)
        return Tail(steps, shaped, no_index, no_index, no_scalars)
    record, column, scalar, first = [no_index], [no_index], [no_scalars], 0
    for count, _, body in rows:
        parts = tiles.unpack_scalars(body, count)
        record.append(parts[0] + first)
        column.append(parts[1])
        scalar.append(parts[2])
        first += count
    no_values = np.empty((len(steps), 0, 0), np.float32)
    return Tail(
        steps, no_values, np.concatenate(record), np.concatenate(column), np.concatenate(scalar)
    )
