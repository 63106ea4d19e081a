"""Which records and nodes answer a question about some steps, and in which buckets they end up."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import catalog, groups, pyramid, tiles
from trainvitals.app.store.groups import Group, Tail
from trainvitals.app.store.pyramid import FAN, FIRST_WIDTH, Nodes

_NEVER: Final = 2**62


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive blocks of one level, `first` to `last`."""

    level: int
    first: int
    last: int
    kept: npt.NDArray[np.bool_] | None
    """Which of its records are asked for; None for all."""


@dataclass(slots=True)
class Segment:
    """What of one group answers the question, in the order of its records; then its tail."""

    group: Group
    spans: list[Span]
    tail: Tail
    tail_kept: npt.NDArray[np.bool_]
    steps: npt.NDArray[np.int64]
    """The step by which each node finds its bucket; shape (nodes,)."""

    def nodes(self, connection: sqlite3.Connection, column: int, low: int, high: int) -> Nodes:
        """Rows `low` to `high` of a column (a scalar by the key of its name); shape (high - low, nodes).

        The rows must lie in one tile of nodes.
        """
        parts = [
            self._values(connection, span, column, low, high)
            if span.level == 0
            else self._summaries(connection, span, column, low, high)
            for span in self.spans
        ]
        if self.group.scalar:
            values: npt.NDArray[Any] = self.tail.scalars_of(column)
        else:
            values = np.ascontiguousarray(self.tail.values[:, low:high, column].T)
        parts.append(self._leaves(values[:, self.tail_kept]))
        return pyramid.join(parts)

    def _leaves(self, values: npt.NDArray[Any]) -> Nodes:
        return pyramid.leaves(np.ascontiguousarray(values), tiles.MISSING[self.group.dtype])

    def _values(
        self, connection: sqlite3.Connection, span: Span, column: int, low: int, high: int
    ) -> Nodes:
        group, block = self.group, self.group.block
        first_tile, last_tile = low // tiles.TILE_ROWS, (high - 1) // tiles.TILE_ROWS
        top = first_tile * tiles.TILE_ROWS
        bottom = min((last_tile + 1) * tiles.TILE_ROWS, group.rows)
        width = (span.last - span.first + 1) * block
        values = np.full((bottom - top, width), tiles.MISSING[group.dtype], group.dtype)
        for tile, number, body in _bodies(connection, group, span, column, first_tile, last_tile):
            row, at = tile * tiles.TILE_ROWS, (number - span.first) * block
            height = min(tiles.TILE_ROWS, group.rows - row)
            values[row - top : row - top + height, at : at + block] = tiles.unpack_values(
                body, group.dtype, height, block
            )
        values = values[low - top : high - top]
        return self._leaves(values if span.kept is None else values[:, span.kept])

    def _summaries(
        self, connection: sqlite3.Connection, span: Span, column: int, low: int, high: int
    ) -> Nodes:
        group, count = self.group, self.group.block // FIRST_WIDTH
        tile = low // tiles.NODE_ROWS
        top = tile * tiles.NODE_ROWS
        height = min(tiles.NODE_ROWS, group.rows - top)
        found = {
            number: body for _, number, body in _bodies(connection, group, span, column, tile, tile)
        }
        numbers = range(span.first, span.last + 1)
        if not found:
            return pyramid.empty(high - low, len(numbers) * count)
        none = b""
        if len(found) < len(numbers):  # a scalar that was not logged for a while
            none = tiles.pack_nodes(pyramid.empty(height, count), group.dtype)
        bodies = [found.get(number, none) for number in numbers]
        nodes = tiles.unpack_nodes(bodies, group.dtype, height, count)
        return nodes[low - top : high - top]


def _bodies(
    connection: sqlite3.Connection,
    group: Group,
    span: Span,
    column: int,
    first_tile: int,
    last_tile: int,
) -> Iterator[tuple[int, int, bytes]]:
    for tile in range(first_tile, last_tile + 1):
        yield from connection.execute(
            "SELECT tile, block, body FROM tiles "
            "WHERE grp = ? AND level = ? AND col = ? AND tile = ? AND block BETWEEN ? AND ?",
            (group.key, span.level, column, tile, span.first, span.last),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer's parts and buckets."""

    segments: list[Segment]
    edges: npt.NDArray[np.int64]
    """First step of each bucket; shape (buckets,)."""


def plan(
    connection: sqlite3.Connection,
    run: int,
    kind: str,
    start: int | None,
    stop: int | None,
    points: int,
) -> Plan:
    """How to read the groups of `kind` of a run from step `start` to before `stop` in about `points` buckets."""
    ends = catalog.view_ends(connection, run)
    rows = connection.execute(
        f"SELECT s.attempt, {groups.FIELDS} FROM groups g JOIN streams s ON s.key = g.stream "
        "WHERE s.run = ? AND s.rank = 0 AND g.kind = ? AND g.count > 0 ORDER BY s.attempt, g.key",
        (run, kind),
    ).fetchall()
    low = -_NEVER if start is None else start
    parts = []
    for attempt, *fields in rows:
        end = ends[attempt]
        high = min(_NEVER if stop is None else stop, _NEVER if end is None else end)
        group = Group(*fields)
        blocks = connection.execute(
            "SELECT COUNT(*) FROM blocks WHERE grp = ? AND level = 0 AND high >= ? AND low < ?",
            (group.key, low, high),
        ).fetchone()[0]
        tail = groups.read_tail(connection, group)
        kept = (tail.steps >= low) & (tail.steps < high)
        parts.append((group, high, blocks * group.block + int(kept.sum()), tail, kept))
    level = pyramid.level_for(sum(part[2] for part in parts), points)
    segments = [
        _segment(connection, group, low, high, level, tail, kept)
        for group, high, count, tail, kept in parts
        if count
    ]
    segments = [segment for segment in segments if len(segment.steps)]
    steps = np.unique(np.concatenate([np.empty(0, np.int64), *(s.steps for s in segments)]))
    return Plan(segments, steps[:: max(1, -(-len(steps) // points))])


def _segment(
    connection: sqlite3.Connection,
    group: Group,
    low: int,
    high: int,
    level: int,
    tail: Tail,
    tail_kept: npt.NDArray[np.bool_],
) -> Segment:
    """Cover the steps from `low` to before `high` with blocks of `level`, the rest with finer ones."""
    covered: set[int] = set()
    chosen: list[tuple[int, int, int, npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]] = []
    for at in range(level, -1, -1):
        spread = FAN ** max(at - 1, 0)
        for number, bottom, top, body in connection.execute(
            "SELECT block, low, high, steps FROM blocks "
            "WHERE grp = ? AND level = ? AND high >= ? AND low < ? ORDER BY block",
            (group.key, at, low, high),
        ):
            first = number * spread
            inside = low <= bottom and top < high
            if first in covered or (at > 0 and not inside):
                continue
            covered.update(range(first, first + spread))
            steps = tiles.unpack_steps(body)
            kept = None if inside else (steps >= low) & (steps < high)
            chosen.append((first, at, number, steps if kept is None else steps[kept], kept))
    chosen.sort(key=lambda item: item[0])
    spans: list[Span] = []
    for _, at, number, _, kept in chosen:
        last = spans[-1] if spans else None
        if last and (last.level, last.last + 1) == (at, number) and kept is None is last.kept:
            spans[-1] = Span(at, last.first, number, None)
        else:
            spans.append(Span(at, number, number, kept))
    # Finer nodes share a bucket in runs as wide as the coarse ones, so that all buckets weigh alike.
    aligned = [
        _runs(steps, pyramid.width(level) // pyramid.width(at)) for _, at, _, steps, _ in chosen
    ]
    aligned.append(_runs(tail.steps[tail_kept], pyramid.width(level)))
    return Segment(group, spans, tail, tail_kept, np.concatenate(aligned))


def _runs(steps: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """The lowest step of each run of `length` steps, in place of each of them."""
    if length == 1 or not len(steps):
        return steps
    starts = np.arange(0, len(steps), length)
    return np.repeat(np.minimum.reduceat(steps, starts), length)[: len(steps)]


class Buckets:
    """Nodes gathered in buckets; arrays have shape (rows, buckets)."""

    def __init__(self, rows: int, edges: npt.NDArray[np.int64]) -> None:
        self._edges = edges
        self.nodes = pyramid.empty(rows, len(edges))

    def add(self, rows: npt.NDArray[np.intp], steps: npt.NDArray[np.int64], nodes: Nodes) -> None:
        """Add `nodes` of shape (rows, n), which come after those that were added to the same rows before."""
        bucket = np.searchsorted(self._edges, steps, side="right") - 1
        if np.any(np.diff(bucket) < 0):  # steps that went back
            order = np.argsort(bucket, kind="stable")
            bucket, nodes = bucket[order], nodes[:, order]
        starts = np.flatnonzero(np.diff(bucket, prepend=-1))
        new = pyramid.merge(nodes, starts)
        place = np.ix_(rows, bucket[starts])
        held = self.nodes[place]
        both = pyramid.combine(held, new)
        for name in Nodes.__slots__:
            getattr(self.nodes, name)[place] = getattr(both, name)
