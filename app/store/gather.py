"""What a plan asks for, read and gathered in its buckets."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import floats, groups, pyramid, tiles
from trainvitals.app.store.cover import Mask, Span, Steps
from trainvitals.app.store.plan import Piece, Segment
from trainvitals.app.store.pyramid import Nodes

CELLS: Final = 1 << 21
"""Nodes that are read at a time, about, which bounds the memory that an answer takes."""


class Buckets:
    """Nodes gathered in buckets; arrays have shape (rows, buckets)."""

    def __init__(self, rows: int, edges: Steps) -> None:
        self.edges = edges
        self._rows = rows
        self._nodes: Nodes | None = None

    @property
    def nodes(self) -> Nodes:
        """What was gathered."""
        return self._nodes or pyramid.empty(self._rows, len(self.edges))

    def add(self, rows: npt.NDArray[np.intp], steps: Steps, nodes: Nodes) -> None:
        """Add `nodes` of shape (rows, n), which come after those that were added to the same rows before.

        steps: of each node; those of a bucket go from its edge to before the next one.
        """
        same = steps is self.edges or np.array_equal(steps, self.edges)
        if same and self._nodes is None and len(rows) == self._rows and _in_order(rows):
            self._nodes = nodes  # as it mostly is for a curve
            return
        self._nodes = gathered = pyramid.writable(self.nodes)
        bucket = np.searchsorted(self.edges, steps, side="right") - 1
        if (bucket[1:] < bucket[:-1]).any():  # steps that went back
            order = np.argsort(bucket, kind="stable")
            bucket, nodes = bucket[order], nodes[:, order]
        starts = pyramid.run_starts(bucket)
        new = pyramid.merge(nodes, starts)
        where = bucket[starts]
        place: Any = np.ix_(rows, where)
        if _in_order(rows) and _in_order(where):  # as they mostly are: many times as fast
            place = slice(rows[0], rows[-1] + 1), slice(where[0], where[-1] + 1)
        held = gathered[place]
        both = np.flatnonzero((held.finite | held.nonfinite).any(axis=0))
        if len(both):  # mostly the one bucket that two pieces share
            shared = pyramid.combine(held[:, both], new[:, both])
            gathered.put(place, new)
            gathered.put(np.ix_(rows, where[both]), shared)
        else:
            gathered.put(place, new)


def _in_order(numbers: npt.NDArray[np.integer]) -> bool:
    """Whether each is the one before and 1."""
    return len(numbers) > 0 and bool((numbers[1:] - numbers[:-1] == 1).all())


class Reader:
    """Reads the nodes of one segment."""

    def __init__(self, connection: sqlite3.Connection, segment: Segment) -> None:
        self._connection = connection
        self._segment = segment
        self._group = segment.reach.group
        self._tail: groups.Tail | None = None
        self._tail_columns: npt.NDArray[np.float32] | None = None

    def row(self, columns: Sequence[int], row: int) -> tuple[Steps, Nodes]:
        """One row of some columns (scalars by the keys of their names): the step of each bucket, and its nodes.

        They have shape (columns, buckets).
        """
        tile, place = divmod(row, tiles.TILE_ROWS)
        nodes, steps = self._read(columns, tile, tile, place), self._segment.steps
        firsts = self._segment.firsts
        if len(firsts) == len(steps):  # as it mostly is
            return steps, nodes
        return steps[firsts], pyramid.merge(nodes, firsts)

    def columns(self, columns: Sequence[int]) -> Iterator[tuple[slice, list[Nodes]]]:
        """All rows of some columns, some at a time: which, and their nodes of each column, shape (rows, runs)."""
        rows = self._group.rows
        widest = max(self._nodes(piece) for piece in self._segment.pieces)
        many = max(1, CELLS // widest // tiles.TILE_ROWS // len(columns))
        whole = rows // tiles.TILE_ROWS  # a last tile of fewer rows goes alone
        for tile in [*range(0, whole, many), *([whole] if rows % tiles.TILE_ROWS else [])]:
            last = tile if tile == whole else min(tile + many, whole) - 1
            low, high = tile * tiles.TILE_ROWS, min((last + 1) * tiles.TILE_ROWS, rows)
            nodes = self._read(columns, tile, last, None)
            places = range(0, len(columns) * (high - low), high - low)
            yield slice(low, high), [nodes[place : place + high - low] for place in places]

    def _nodes(self, piece: Piece) -> int:
        """How many nodes of a row are read for a piece."""
        span = piece.span
        if span is None:
            return self._segment.reach.tail_records
        return (span.last - span.first + 1) * self._group.nodes(span.level)

    def _read(self, columns: Sequence[int], first: int, last: int, place: int | None) -> Nodes:
        """Tiles `first` to `last`, which are equally high, or row `place` of them: shape (cells, runs)."""
        parts = []
        for piece in self._segment.pieces:
            if piece.span is None:
                nodes = self._from_tail(columns, first, last, place)
            elif piece.span.fresh:
                nodes = self._fresh(piece.span, columns, first, last, place)
            else:
                nodes = self._from_tiles(piece.span, columns, first, last, place)
            parts.append(pyramid.merge(nodes, piece.starts))
        return pyramid.join(parts)

    def _rows(self, first: int, last: int, place: int | None) -> slice:
        low = first * tiles.TILE_ROWS
        if place is not None:
            return slice(low + place, low + place + 1)
        return slice(low, min((last + 1) * tiles.TILE_ROWS, self._group.rows))

    def _from_tail(self, columns: Sequence[int], first: int, last: int, place: int | None) -> Nodes:
        reach = self._segment.reach
        kept = reach.tail_kept
        if self._group.scalar:
            if self._tail is None:
                self._tail = groups.read_tail(self._connection, self._group, reach.tail_first)
            values: npt.NDArray[Any] = np.concatenate(
                [self._tail.scalars_of(column) for column in columns]
            )
        else:
            rows = self._rows(first, last, place)
            if place is not None:
                chosen = self._tail_rows(rows, columns)
            else:
                if self._tail_columns is None:  # to be read whole, whichever rows are wanted
                    self._tail_columns = self._tail_rows(slice(0, self._group.rows), columns)
                chosen = self._tail_columns[:, rows]
            values = chosen.transpose(2, 1, 0).reshape(-1, len(kept))
        return self._leaves(values, kept)

    def _tail_rows(self, rows: slice, columns: Sequence[int]) -> npt.NDArray[np.float32]:
        first = self._segment.reach.tail_first
        return groups.tail_rows(self._connection, self._group, first, rows, columns)

    def _leaves(self, values: npt.NDArray[Any], kept: Mask | None) -> Nodes:
        chosen = values if kept is None or kept.all() else values[:, kept]
        return pyramid.leaves(np.ascontiguousarray(chosen), tiles.MISSING[self._group.dtype])

    def _fresh(
        self, span: Span, columns: Sequence[int], first: int, last: int, place: int | None
    ) -> Nodes:
        group, blocks = self._group, span.last - span.first + 1
        count, rows = group.block // pyramid.FIRST_WIDTH, self._rows(first, last, place)
        height = rows.stop - rows.start
        wanted = tiles.some_lines(group.rows, rows)
        places: list[int] = []
        bodies: list[bytes] = []
        for cell, column in enumerate(columns):
            held = self._connection.execute(
                f"SELECT block, {wanted} FROM fresh "
                "WHERE grp = ? AND col = ? AND block BETWEEN ? AND ?",
                (group.key, column, span.first, span.last),
            ).fetchall()
            places += [cell * blocks + block - span.first for block, _ in held]
            bodies += [body for _, body in held]
        shape = (len(columns), blocks, height, count)
        if not bodies:
            return pyramid.empty(shape[0] * shape[2], blocks * count)
        nodes = tiles.unpack_plain(bodies, group.dtype, height, count, 1)
        return _laid_out(nodes, places, shape)

    def _from_tiles(
        self, span: Span, columns: Sequence[int], first: int, last: int, place: int | None
    ) -> Nodes:
        group, blocks = self._group, span.last - span.first + 1
        height = min(tiles.TILE_ROWS, group.rows - first * tiles.TILE_ROWS)
        chosen = slice(0, height) if place is None else slice(place, place + 1)
        plain = span.level > 0 and tiles.plain(group.dtype, span.level)
        wanted = tiles.some_lines(height, chosen) if plain else "body"
        places: list[int] = []
        bodies: list[bytes] = []
        cell = 0
        for column in columns:
            for tile in range(first, last + 1):
                held = self._connection.execute(
                    f"SELECT block, {wanted} FROM tiles "
                    "WHERE grp = ? AND level = ? AND col = ? AND tile = ? AND block BETWEEN ? AND ? "
                    "ORDER BY block",
                    (group.key, span.level, column, tile, span.first, span.last),
                ).fetchall()
                places += [cell * blocks + block - span.first for block, _ in held]
                bodies += [body for _, body in held]
                cell += 1
        shown, count = chosen.stop - chosen.start, group.nodes(span.level)
        shape = (cell, blocks, shown, count)
        if not bodies:
            nothing = pyramid.empty(cell * shown, blocks * count)
            return nothing if span.kept is None else nothing[:, span.kept]
        if span.level == 0:
            missing = tiles.MISSING[group.dtype]
            values = floats.unpack(bodies, group.dtype, height, count, chosen)
            return self._leaves(_in_rows(values, places, shape, missing), span.kept)
        if plain:
            nodes = tiles.unpack_plain(bodies, group.dtype, shown, count, span.level)
        else:
            nodes = tiles.unpack_packed(bodies, group.dtype, height, count, span.level, chosen)
        return _laid_out(nodes, places, shape)


def _laid_out(nodes: Nodes, places: list[int], shape: tuple[int, int, int, int]) -> Nodes:
    """`_in_rows` of every array."""
    return Nodes(
        _in_rows(nodes.min, places, shape, np.nan),
        _in_rows(nodes.max, places, shape, np.nan),
        _in_rows(nodes.mean, places, shape, np.nan),
        _in_rows(nodes.last, places, shape, np.nan),
        _in_rows(nodes.finite, places, shape, 0),
        _in_rows(nodes.nonfinite, places, shape, 0),
    )


def _in_rows(
    field: npt.NDArray[Any], places: list[int], shape: tuple[int, int, int, int], missing: Any
) -> npt.NDArray[Any]:
    """Tiles of shape (rows, n) as (cells * rows, blocks * n); `missing` where there is no tile.

    places: of each tile, cells first. shape: (cells, blocks, rows, n).
    """
    cells, blocks, rows, count = shape
    flat = cells * rows, blocks * count
    if len(field) < cells * blocks:
        whole = np.full((cells * blocks, rows, count), missing, field.dtype)
        whole[places] = field
    elif pyramid.is_uniform(field):
        return pyramid.uniform(int(field[0, 0, 0]), flat)
    elif rows == 1:
        return field.reshape(flat)
    else:
        whole = field
    return whole.reshape(shape).transpose(0, 2, 1, 3).reshape(flat)
