"""Records into groups: into the tail first, and from there into tiles and the levels of the pyramid."""

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import groups, pyramid, tiles
from trainvitals.app.store.groups import Group, Tail
from trainvitals.app.store.pyramid import FAN, FIRST_SPAN, FIRST_WIDTH, Nodes

_SLICE: Final = 512
"""Scalars compacted at a time."""
_CELLS: Final = 1 << 15
"""Rows times columns summed up at a time, which bounds the memory that it takes."""

_TileRow = tuple[int, int, int, int, int, bytes]
Matrices = Iterable[tuple[int, npt.NDArray[Any], Nodes]]
"""By column: values of shape (rows, records), and their nodes of level 1, shape (rows, n)."""


def extend(
    connection: sqlite3.Connection, group: Group, steps: npt.NDArray[np.int64], body: bytes
) -> None:
    """Add records to the tail, and compact it when there are enough for a block."""
    first = group.count
    group.count += len(steps)
    if group.count - group.compacted >= group.block:
        pieces = connection.execute(
            "SELECT count, steps, body FROM tail WHERE grp = ? ORDER BY first", (group.key,)
        ).fetchall()
        connection.execute("DELETE FROM tail WHERE grp = ?", (group.key,))
        pieces.append((len(steps), steps.astype("<i8").tobytes(), body))
        _compact(connection, group, groups.parse_tail(group, pieces))
    else:
        groups.insert_tail(connection, group, first, steps, body)
    groups.note_size(connection, group)


def _compact(connection: sqlite3.Connection, group: Group, tail: Tail) -> None:
    ready = len(tail.steps) // group.block * group.block
    for first in range(0, ready, group.block):
        part = slice(first, first + group.block)
        if group.scalar:
            inside = (tail.record >= first) & (tail.record < first + group.block)
            matrices = _scalar_matrices(
                tail.record[inside] - first, tail.column[inside], tail.scalar[inside], group.block
            )
        else:
            matrices = _matrices(tail.values[part])
        write_block(connection, group, tail.steps[part], matrices)
    if ready < len(tail.steps):
        if group.scalar:
            rest = tail.record >= ready
            counts = np.bincount(tail.record[rest] - ready, minlength=len(tail.steps) - ready)
            body = tiles.join_scalars(counts, tail.column[rest], tail.scalar[rest])
        else:
            body = tail.values[ready:].tobytes()
        groups.insert_tail(connection, group, group.compacted, tail.steps[ready:], body)


def _matrices(values: npt.NDArray[np.float32]) -> Matrices:
    """values: (records, rows, columns)."""
    missing = tiles.MISSING["<f4"]
    records, rows, columns = values.shape
    flat = values.reshape(records, rows * columns)
    parts = [
        pyramid.of_records(flat[:, low : low + _CELLS], missing)
        for low in range(0, rows * columns, _CELLS)
    ]
    nodes = [field.reshape(-1, rows, columns) for field in pyramid.join(parts).fields]
    for column in range(columns):
        own = Nodes(*(np.ascontiguousarray(field[:, :, column].T) for field in nodes))
        yield column, np.ascontiguousarray(values[:, :, column].T), own


def nodes_of(values: npt.NDArray[Any]) -> Nodes:
    """Nodes of level 1 of values of shape (rows, records)."""
    missing = tiles.MISSING[values.dtype.str]
    nodes = pyramid.of_records(np.ascontiguousarray(values.T), missing)
    return Nodes(*(np.ascontiguousarray(field.T) for field in nodes.fields))


def _scalar_matrices(
    record: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    scalar: npt.NDArray[np.float64],
    block: int,
) -> Matrices:
    """Each scalar that was recorded in a block: which record, which column, what value."""
    names, index = np.unique(column, return_inverse=True)
    for low in range(0, len(names), _SLICE):
        held = names[low : low + _SLICE]
        dense = np.full((len(held), block), tiles.MISSING["<f8"])
        inside = (index >= low) & (index < low + _SLICE)
        dense[index[inside] - low, record[inside]] = scalar[inside]
        nodes = nodes_of(dense)
        for position, name in enumerate(held.tolist()):
            one = slice(position, position + 1)
            yield name, dense[one], nodes[one]


def write_block(
    connection: sqlite3.Connection,
    group: Group,
    steps: npt.NDArray[np.int64],
    matrices: Matrices,
) -> None:
    """Write the next block of records as tiles, and what it adds to the pyramid."""
    number = group.compacted // group.block
    _insert_block(connection, group, 0, number, steps, int(steps.min()), int(steps.max()))
    rows: list[_TileRow] = []
    summed = []
    for column, values, nodes in matrices:
        rows += _tile_rows(group, 0, column, number, tiles.pack_values(values))
        summed.append((column, nodes))
    _insert_tiles(connection, rows)
    group.compacted += group.block
    sum_up(connection, group, number, summed)


def sum_up(
    connection: sqlite3.Connection, group: Group, number: int, summed: Iterable[tuple[int, Nodes]]
) -> None:
    """Add what block `number` of records adds to the pyramid: by column its nodes of level 1, shape (rows, n)."""
    fresh = (
        (group.key, column, number, tiles.pack_plain(nodes, group.dtype, 1))
        for column, nodes in summed
    )
    connection.executemany("INSERT INTO fresh (grp, col, block, body) VALUES (?, ?, ?, ?)", fresh)
    level, number = 0, number + 1
    while number % (fan := FAN if level else FIRST_SPAN) == 0:
        number //= fan
        level += 1
        _write_level(connection, group, level, number - 1)


def _write_level(connection: sqlite3.Connection, group: Group, level: int, number: int) -> None:
    """Write block `number` of `level`, of the nodes or blocks of nodes that make it up."""
    fan = FAN if level > 1 else FIRST_SPAN
    first, last = fan * number, fan * number + fan - 1
    found = connection.execute(
        "SELECT low, high, steps FROM blocks WHERE grp = ? AND level = ? AND block BETWEEN ? AND ? "
        "ORDER BY block",
        (group.key, level - 1, first, last),
    ).fetchall()
    steps = np.concatenate([tiles.unpack_steps(row[2]) for row in found])
    firsts = steps.reshape(-1, FAN if level > 1 else FIRST_WIDTH).min(axis=1)
    low, high = min(row[0] for row in found), max(row[1] for row in found)
    _insert_block(connection, group, level, number, firsts, low, high)
    rows: list[_TileRow] = []
    read = _below if level > 1 else _fresh
    for column, nodes in read(connection, group, level - 1, first, last):
        bodies = tiles.pack_nodes(nodes, group.dtype, level)
        rows += _tile_rows(group, level, column, number, bodies)
    _insert_tiles(connection, rows)
    if level == 1:
        connection.execute(
            "DELETE FROM fresh WHERE grp = ? AND block BETWEEN ? AND ?", (group.key, first, last)
        )


def _fresh(
    connection: sqlite3.Connection, group: Group, level: int, first: int, last: int
) -> Iterator[tuple[int, Nodes]]:
    """The nodes of level 1 that wait for their block, by column."""
    count = group.block // FIRST_WIDTH
    nothing = tiles.pack_plain(pyramid.empty(group.rows, count), group.dtype, 1)
    found = connection.execute(
        "SELECT col, block, body FROM fresh WHERE grp = ? AND block BETWEEN ? AND ? ORDER BY col",
        (group.key, first, last),
    )
    for column, rows in groupby(found, key=itemgetter(0)):
        held = {block: body for _, block, body in rows}
        bodies = [held.get(block, nothing) for block in range(first, last + 1)]
        nodes = tiles.unpack_plain(bodies, group.dtype, group.rows, count, 1)
        yield column, _in_a_row(nodes)


def _below(
    connection: sqlite3.Connection, group: Group, level: int, first: int, last: int
) -> Iterator[tuple[int, Nodes]]:
    """Nodes of blocks `first` to `last` of `level`, by column, each `FAN` as one."""
    count = group.nodes(level)
    for column in columns_of(connection, group, level):
        held: dict[tuple[int, int], bytes] = {}
        for tile in range(-(-group.rows // tiles.TILE_ROWS)):
            for block, body in connection.execute(
                "SELECT block, body FROM tiles WHERE grp = ? AND level = ? AND col = ? "
                "AND tile = ? AND block BETWEEN ? AND ?",
                (group.key, level, column, tile, first, last),
            ):
                held[tile, block - first] = body
        nodes = pyramid.empty(group.rows, count * FAN)
        whole = group.rows // tiles.TILE_ROWS
        for height in (
            tiles.TILE_ROWS,
            group.rows % tiles.TILE_ROWS,
        ):  # the last tile has fewer rows
            places = [place for place in held if (place[0] < whole) == (height == tiles.TILE_ROWS)]
            if not places:
                continue
            bodies = [held[place] for place in places]
            read = tiles.unpack_nodes(bodies, group.dtype, height, count, level)
            for index, (tile, block) in enumerate(places):
                low, at = tile * tiles.TILE_ROWS, block * count
                nodes.put((slice(low, low + height), slice(at, at + count)), read[index])
        yield column, pyramid.coarsen(nodes, FAN)


def columns_of(connection: sqlite3.Connection, group: Group, level: int) -> Iterator[int]:
    """The columns that have tiles of `level`: one look-up each, however many tiles there are."""
    column = -1
    while True:
        (column,) = connection.execute(
            "SELECT MIN(col) FROM tiles WHERE grp = ? AND level = ? AND col > ?",
            (group.key, level, column),
        ).fetchone()
        if column is None:
            return
        yield column


def _in_a_row(nodes: Nodes) -> Nodes:
    """(blocks, rows, n) to (rows, blocks * n)."""
    rows = nodes.finite.shape[1]
    return Nodes(*(field.transpose(1, 0, 2).reshape(rows, -1) for field in nodes.fields))


def _tile_rows(
    group: Group, level: int, column: int, number: int, bodies: Iterable[bytes]
) -> list[_TileRow]:
    return [(group.key, level, column, tile, number, body) for tile, body in enumerate(bodies)]


def _insert_tiles(connection: sqlite3.Connection, rows: list[_TileRow]) -> None:
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
