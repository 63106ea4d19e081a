"""Groups: their layouts, the tail they grow by, and its compaction to tiles and summaries."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trainvitals.app.store import pyramid, tiles
from trainvitals.app.store.pyramid import FAN, FIRST_WIDTH, Nodes
from trainvitals.app.store.types import InvalidRecord
from trainvitals.hooks.wire.records import Layout

SCALARS: Final = -1
"""Number of the group of a stream's scalars."""
BLOCK: Final = 256
"""Records that are compacted together, fewer for groups of very many rows."""
_BLOCK_VALUES: Final = 4 << 20
"""Values in a block at most, which bounds the memory that compaction takes."""
_SLICE: Final = 512
"""Scalars compacted at a time."""

_layout_decoder = msgspec.msgpack.Decoder(Layout)


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

    @property
    def layout(self) -> Layout:
        """The layout, of a group that is not of scalars."""
        return _layout_decoder.decode(self.layout_bytes or b"")


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
    while block > FIRST_WIDTH and block * size > _BLOCK_VALUES:
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


def extend(
    connection: sqlite3.Connection, group: Group, steps: npt.NDArray[np.int64], body: bytes
) -> None:
    """Add records to the tail, or compact it with them when there are enough for a block."""
    first = group.count
    group.count += len(steps)
    if group.count - group.compacted < group.block:
        _insert_tail(connection, group, first, steps, body)
    else:
        _compact(connection, group, (len(steps), steps.astype("<i8").tobytes(), body))
    connection.execute(
        "UPDATE groups SET count = ?, compacted = ? WHERE key = ?",
        (group.count, group.compacted, group.key),
    )


def _insert_tail(
    connection: sqlite3.Connection,
    group: Group,
    first: int,
    steps: npt.NDArray[np.int64],
    body: bytes,
) -> None:
    connection.execute(
        "INSERT INTO tail (grp, first, count, steps, body) VALUES (?, ?, ?, ?, ?)",
        (group.key, first, len(steps), steps.astype("<i8").tobytes(), body),
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

    def scalars_of(self, column: int) -> npt.NDArray[np.float64]:
        """Values of one scalar, shape (1, n)."""
        chosen = self.column == column
        dense = np.full((1, len(self.steps)), tiles.MISSING["<f8"])
        dense[0, self.record[chosen]] = self.scalar[chosen]
        return dense


def read_tail(connection: sqlite3.Connection, group: Group, *new: tuple[int, bytes, bytes]) -> Tail:
    """The tail of `group`, with `new` rows that are not in it: records, steps and body as its columns hold them."""
    rows = connection.execute(
        "SELECT count, steps, body FROM tail WHERE grp = ? ORDER BY first", (group.key,)
    ).fetchall()
    rows += new
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


def _compact(connection: sqlite3.Connection, group: Group, new: tuple[int, bytes, bytes]) -> None:
    """Bring the tail and the `new` row, which is not in it, to blocks; what is left over is the new tail."""
    tail = read_tail(connection, group, new)
    connection.execute("DELETE FROM tail WHERE grp = ?", (group.key,))
    ready = len(tail.steps) // group.block * group.block
    for first in range(0, ready, group.block):
        part = slice(first, first + group.block)
        number = group.compacted // group.block
        if group.scalar:
            inside = (tail.record >= first) & (tail.record < first + group.block)
            matrices = _scalar_matrices(
                tail.record[inside] - first, tail.column[inside], tail.scalar[inside], group.block
            )
        else:
            # (records, rows, columns) to (columns, rows, records)
            by_column = np.ascontiguousarray(tail.values[part].transpose(2, 1, 0))
            matrices = enumerate(by_column)
        _write_block(connection, group, number, tail.steps[part], matrices)
        group.compacted += group.block
    if ready < len(tail.steps):
        if group.scalar:
            rest = tail.record >= ready
            counts = np.bincount(tail.record[rest] - ready, minlength=len(tail.steps) - ready)
            body = tiles.join_scalars(counts, tail.column[rest], tail.scalar[rest])
        else:
            body = tail.values[ready:].tobytes()
        _insert_tail(connection, group, group.compacted, tail.steps[ready:], body)


def _scalar_matrices(
    record: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    scalar: npt.NDArray[np.float64],
    block: int,
) -> Iterable[tuple[int, npt.NDArray[Any]]]:
    """Each scalar that was recorded, and its values of shape (1, block)."""
    names, index = np.unique(column, return_inverse=True)
    for low in range(0, len(names), _SLICE):
        held = names[low : low + _SLICE]
        dense = np.full((len(held), block), tiles.MISSING["<f8"])
        inside = (index >= low) & (index < low + _SLICE)
        dense[index[inside] - low, record[inside]] = scalar[inside]
        for position, name in enumerate(held):
            yield int(name), dense[position : position + 1]


def _write_block(
    connection: sqlite3.Connection,
    group: Group,
    number: int,
    steps: npt.NDArray[np.int64],
    matrices: Iterable[tuple[int, npt.NDArray[Any]]],
) -> None:
    """Write records as tiles, and what they add to the pyramid. matrices: (rows, records) by column."""
    _insert_block(connection, group, 0, number, steps, int(steps.min()), int(steps.max()))
    rows = []
    missing = tiles.MISSING[group.dtype]
    for column, values in matrices:
        for tile, low in enumerate(range(0, group.rows, tiles.TILE_ROWS)):
            body = tiles.pack_values(values[low : low + tiles.TILE_ROWS])
            rows.append((group.key, 0, column, tile, number, body))
        nodes = pyramid.first_level(values, missing)
        rows += _node_rows(group, 1, column, number, nodes)
    _insert_tiles(connection, rows)
    firsts = steps.reshape(-1, FIRST_WIDTH).min(axis=1)
    _insert_block(connection, group, 1, number, firsts, int(steps.min()), int(steps.max()))
    level = 1
    while (number + 1) % FAN == 0:
        number //= FAN
        level += 1
        _write_level(connection, group, level, number)


def _write_level(connection: sqlite3.Connection, group: Group, level: int, number: int) -> None:
    """Sum up the blocks of the level below that make up block `number` of `level`."""
    below = (group.key, level - 1, FAN * number, FAN * number + FAN - 1)
    found = connection.execute(
        "SELECT low, high, steps FROM blocks WHERE grp = ? AND level = ? AND block BETWEEN ? AND ? "
        "ORDER BY block",
        below,
    ).fetchall()
    steps = np.concatenate([tiles.unpack_steps(row[2]) for row in found])
    firsts = steps.reshape(-1, FAN).min(axis=1)
    low, high = min(row[0] for row in found), max(row[1] for row in found)
    _insert_block(connection, group, level, number, firsts, low, high)
    parts: dict[tuple[int, int], dict[int, bytes]] = {}
    for column, tile, block, body in connection.execute(
        "SELECT col, tile, block, body FROM blocks JOIN tiles USING (grp, level, block) "
        "WHERE grp = ? AND level = ? AND block BETWEEN ? AND ?",
        below,
    ):
        parts.setdefault((column, tile), {})[block] = body
    count = group.block // FIRST_WIDTH
    rows = []
    for (column, tile), bodies in sorted(parts.items()):
        height = min(tiles.NODE_ROWS, group.rows - tile * tiles.NODE_ROWS)
        none = tiles.pack_nodes(pyramid.empty(height, count), group.dtype)
        ordered = [bodies.get(block, none) for block in range(below[2], below[3] + 1)]
        nodes = tiles.unpack_nodes(ordered, group.dtype, height, count)
        body = tiles.pack_nodes(pyramid.coarsen(nodes, FAN), group.dtype)
        rows.append((group.key, level, column, tile, number, body))
    _insert_tiles(connection, rows)


def _node_rows(
    group: Group, level: int, column: int, number: int, nodes: Nodes
) -> list[tuple[int, int, int, int, int, bytes]]:
    return [
        (
            group.key,
            level,
            column,
            tile,
            number,
            tiles.pack_nodes(nodes[low : low + tiles.NODE_ROWS], group.dtype),
        )
        for tile, low in enumerate(range(0, group.rows, tiles.NODE_ROWS))
    ]


def _insert_tiles(
    connection: sqlite3.Connection, rows: list[tuple[int, int, int, int, int, bytes]]
) -> None:
    connection.executemany(
        "INSERT INTO tiles (grp, level, col, tile, block, body) VALUES (?, ?, ?, ?, ?, ?)", rows
    )


def _insert_block(
    connection: sqlite3.Connection,
    group: Group,
    level: int,
    number: int,
    steps: npt.NDArray[np.int64],
    low: int,
    high: int,
) -> None:
    connection.execute(
        "INSERT INTO blocks (grp, level, block, low, high, steps) VALUES (?, ?, ?, ?, ?, ?)",
        (group.key, level, number, low, high, tiles.pack_steps(steps)),
    )
