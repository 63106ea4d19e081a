"""Bring the tiles of an older database into the form that is written now."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import bars, compaction, groups, pyramid, tiles
from trainvitals.app.store.compression import decompress
from trainvitals.app.store.groups import Group

_ROWS: Final = 8
"""Rows in a tile, as it was."""
_RECORDS: Final = 256
"""Records with histograms that are rewritten at a time."""


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of records as it was."""

    steps: npt.NDArray[np.int64]
    columns: dict[int, npt.NDArray[Any]]
    """Values of shape (rows, records) by column."""


def repack(connection: sqlite3.Connection) -> None:
    """Rewrite the blocks of schema version 2. Like what follows, inside the caller's transaction."""
    for group in _compacted(connection):
        _repack(connection, group)


def sum_up_anew(connection: sqlite3.Connection) -> None:
    """Rewrite the pyramids of schema version 7, in whose higher levels nodes were packed as records are."""
    for group in _compacted(connection):
        _drop_pyramid(connection, group)
        columns = list(compaction.columns_of(connection, group, 0))
        blocks, group.compacted = group.blocks(0), 0
        for number in range(blocks):
            group.compacted += group.block
            held = _values(connection, group, columns, number)
            summed = ((column, compaction.nodes_of(values)) for column, values in held)
            compaction.sum_up(connection, group, number, summed)


def pack_histograms(connection: sqlite3.Connection) -> None:
    """Rewrite the histograms of schema version 8, which were one part of all rows."""
    last = 0
    while found := connection.execute(
        "SELECT h.rowid, h.body, g.rows FROM histograms h JOIN groups g ON g.key = h.grp "
        "WHERE h.rowid > ? ORDER BY h.rowid LIMIT ?",
        (last, _RECORDS),
    ).fetchall():
        last = found[-1][0]
        connection.executemany(
            "UPDATE histograms SET body = ? WHERE rowid = ?",
            [(bars.pack(decompress(body), rows), key) for key, body, rows in found],
        )


def _compacted(connection: sqlite3.Connection) -> list[Group]:
    """The groups that have blocks."""
    rows = connection.execute(f"SELECT {groups.FIELDS} FROM groups g WHERE g.compacted > 0")
    return [Group(*row) for row in rows.fetchall()]


def _drop_pyramid(connection: sqlite3.Connection, group: Group) -> None:
    for statement in (
        "DELETE FROM tiles WHERE grp = ? AND level > 0",
        "DELETE FROM blocks WHERE grp = ? AND level > 0",
        "DELETE FROM fresh WHERE grp = ?",
    ):
        connection.execute(statement, (group.key,))


def _values(
    connection: sqlite3.Connection, group: Group, columns: Sequence[int], number: int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """A block of records by column: shape (rows, records)."""
    for column in columns:
        bodies = [
            body
            for tile in range(-(-group.rows // tiles.TILE_ROWS))
            for (body,) in connection.execute(
                "SELECT body FROM tiles WHERE grp = ? AND level = 0 AND col = ? AND tile = ? "
                "AND block = ?",
                (group.key, column, tile, number),
            )
        ]
        if bodies:  # a scalar may be in other blocks alone
            yield column, tiles.unpack_tiles(bodies, group.dtype, group.rows, group.block)


def _repack(connection: sqlite3.Connection, group: Group) -> None:
    _drop_pyramid(connection, group)
    size = group.block
    count = group.compacted // size
    group.block, group.compacted = max(size, pyramid.FIRST_WIDTH), 0
    together = group.block // size
    for first in range(0, count, together):
        taken = [
            _take(connection, group, size, number)
            for number in range(first, min(first + together, count))
        ]
        if len(taken) == together:
            _write(connection, group, taken)
        else:
            _to_tail(connection, group, taken[0])
    connection.execute("UPDATE groups SET block = ? WHERE key = ?", (group.block, group.key))
    groups.note_size(connection, group)


def _take(connection: sqlite3.Connection, group: Group, size: int, number: int) -> _Block:
    """Read a block and remove it."""
    where = "WHERE grp = ? AND level = 0 AND block = ?", (group.key, number)
    (steps,) = connection.execute(f"SELECT steps FROM blocks {where[0]}", where[1]).fetchone()
    columns: dict[int, npt.NDArray[Any]] = {}
    for column, tile, body in connection.execute(
        f"SELECT col, tile, body FROM tiles {where[0]}", where[1]
    ):
        if column not in columns:
            columns[column] = np.empty((group.rows, size), group.dtype)
        low = tile * _ROWS
        columns[column][low : low + _ROWS] = _unpack(body, group.dtype, size)
    connection.execute(f"DELETE FROM tiles {where[0]}", where[1])
    connection.execute(f"DELETE FROM blocks {where[0]}", where[1])
    return _Block(tiles.unpack_steps(steps), columns)


def _unpack(body: bytes, dtype: str, size: int) -> npt.NDArray[Any]:
    """A tile as it was written: all lowest bytes of the values, then all second-lowest, ..., then zstd."""
    places = np.frombuffer(decompress(body), np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    return np.ascontiguousarray(places.T).view(dtype).reshape(-1, size)


def _write(connection: sqlite3.Connection, group: Group, taken: Sequence[_Block]) -> None:
    steps = np.concatenate([block.steps for block in taken])
    columns = {
        column: np.concatenate([block.columns[column] for block in taken], axis=1)
        for column in taken[0].columns
    }
    matrices = (
        (column, values, compaction.nodes_of(values)) for column, values in sorted(columns.items())
    )
    compaction.write_block(connection, group, steps, matrices)


def _to_tail(connection: sqlite3.Connection, group: Group, block: _Block) -> None:
    # (columns, rows, records) to (records, rows, columns)
    values = np.stack([block.columns[column] for column in range(group.columns)])
    body = np.ascontiguousarray(values.transpose(2, 1, 0)).tobytes()
    groups.insert_tail(connection, group, group.compacted, block.steps, body)
