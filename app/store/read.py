"""Answers for the charts."""

import sqlite3
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import catalog, groups, tiles
from trainvitals.app.store.cover import Steps
from trainvitals.app.store.gather import Buckets, Reader
from trainvitals.app.store.groups import Group
from trainvitals.app.store.plan import plan
from trainvitals.app.store.pyramid import Nodes
from trainvitals.app.store.types import Matrix, News, Series
from trainvitals.hooks.wire.records import GroupKind, Layout, Row


def series(
    connection: sqlite3.Connection,
    run_id: str,
    names: list[str],
    start: int | None,
    stop: int | None,
    points: int,
    since: str,
) -> News[dict[str, Series]]:
    """Scalars over the steps; see `Store.series`."""
    run = catalog.find_key(connection, run_id)
    if run is None:
        return News({}, "", True)
    known = catalog.names(connection, run)
    wanted = [name for name in dict.fromkeys(names) if name in known]
    answer = plan(connection, run, "scalar", start, stop, points, since)
    buckets = Buckets(len(wanted), answer.edges)
    for segment in answer.segments if wanted else ():
        found = Reader(connection, segment).row([known[name] for name in wanted], 0)
        buckets.add(np.arange(len(wanted)), *found)
    nodes = buckets.nodes
    curves = {name: _series(answer.edges, nodes, row) for row, name in enumerate(wanted)}
    return News(curves, answer.cursor, answer.whole)


def _series(edges: Steps, nodes: Nodes, row: int) -> Series:
    kept = (nodes.finite[row] + nodes.nonfinite[row]) > 0
    if kept.all():  # as it mostly is, and then nothing needs to be copied
        own = nodes[row]
        return Series(edges, own.min, own.max, own.mean, own.last, own.nonfinite)
    own = nodes[row, kept]
    return Series(edges[kept], own.min, own.max, own.mean, own.last, own.nonfinite)


def matrices(
    connection: sqlite3.Connection,
    run_id: str,
    kind: GroupKind,
    statistics: Sequence[str],
    start: int | None,
    stop: int | None,
    buckets: int,
    since: str,
) -> News[dict[str, Matrix]]:
    """Some statistics of all rows over the steps; see `Store.matrices`."""
    run = catalog.find_key(connection, run_id)
    if run is None:
        nothing = _matrix([], Buckets(0, np.empty(0, np.int64)))
        return News(dict.fromkeys(statistics, nothing), "", True)
    layouts = _layouts(connection, run, kind)
    rows = {statistic: _rows(layouts, statistic) for statistic in statistics}
    answer = plan(connection, run, kind, start, stop, buckets, since)
    edges = answer.edges
    gathered = {key: Buckets(len(own), edges if own else edges[:0]) for key, own in rows.items()}
    for segment in answer.segments:
        layout = segment.reach.group.layout
        held = [statistic for statistic in rows if statistic in layout.columns]
        if not held:
            continue
        places = {key: {name: index for index, name in enumerate(rows[key])} for key in held}
        targets = {
            key: np.array([of[row.name] for row in layout.rows]) for key, of in places.items()
        }
        columns = [layout.columns.index(statistic) for statistic in held]
        for part, found in Reader(connection, segment).columns(columns):
            for statistic, nodes in zip(held, found, strict=True):
                gathered[statistic].add(targets[statistic][part], segment.steps, nodes)
    made = {key: _matrix(list(rows[key].values()), own) for key, own in gathered.items()}
    return News(made, answer.cursor, answer.whole)


def _matrix(rows: list[Row], gathered: Buckets) -> Matrix:
    nodes = gathered.nodes
    with np.errstate(over="ignore", invalid="ignore"):
        return Matrix(
            rows,
            gathered.edges,
            nodes.min.astype(np.float32),
            nodes.max.astype(np.float32),
            nodes.mean.astype(np.float32),
            nodes.nonfinite,
            (nodes.finite + nodes.nonfinite) > 0,
        )


def _layouts(connection: sqlite3.Connection, run: int, kind: GroupKind) -> list[Layout]:
    """The newest layouts in their order, then those that are gone since."""
    found = connection.execute(
        f"SELECT {groups.FIELDS}, s.attempt FROM groups g JOIN streams s ON s.key = g.stream "
        "WHERE s.run = ? AND s.rank = 0 AND g.kind = ? ORDER BY s.attempt DESC, g.key DESC",
        (run, kind),
    ).fetchall()
    layouts = [(row[-1], Group(*row[:-1]).layout) for row in found]
    newest = {layout.group for attempt, layout in layouts if attempt == layouts[0][0]}
    current: dict[int, Layout] = {}
    for attempt, layout in layouts:
        if attempt == layouts[0][0] and layout.group in newest:
            current.setdefault(layout.group, layout)
    ordered = [current[number] for number in sorted(current)]
    return ordered + [layout for _, layout in layouts if layout not in ordered]


def _rows(layouts: Sequence[Layout], statistic: str) -> dict[str, Row]:
    """The rows that have a statistic, by name."""
    rows: dict[str, Row] = {}
    for layout in layouts:
        if statistic in layout.columns:
            for row in layout.rows:
                rows.setdefault(row.name, row)
    return rows


def row(
    connection: sqlite3.Connection,
    run_id: str,
    kind: GroupKind,
    name: str,
    start: int | None,
    stop: int | None,
    points: int,
    since: str,
) -> News[dict[str, Series]]:
    """All statistics of one row over the steps; see `Store.row`."""
    run = catalog.find_key(connection, run_id)
    if run is None:
        return News({}, "", True)
    answer = plan(connection, run, kind, start, stop, points, since)
    parts = []
    for segment in answer.segments:
        layout = segment.reach.group.layout
        index = next((i for i, row in enumerate(layout.rows) if row.name == name), None)
        if index is not None:
            parts.append((segment, layout.columns, index))
    statistics = list(dict.fromkeys(column for _, columns, _ in parts for column in columns))
    position = {statistic: place for place, statistic in enumerate(statistics)}
    buckets = Buckets(len(statistics), answer.edges)
    for segment, columns, index in parts:
        found = Reader(connection, segment).row(range(len(columns)), index)
        targets = np.array([position[column] for column in columns])
        buckets.add(targets, *found)
    nodes = buckets.nodes
    curves = {key: _series(answer.edges, nodes, place) for key, place in position.items()}
    return News(curves, answer.cursor, answer.whole)


def latest(
    connection: sqlite3.Connection, run_id: str, kind: GroupKind
) -> tuple[Layout, int, npt.NDArray[np.float32]] | None:
    """The newest record of a kind; see `Store.latest`."""
    found = connection.execute(
        f"SELECT {groups.FIELDS} FROM groups g JOIN streams s ON s.key = g.stream "
        "JOIN runs r ON r.key = s.run WHERE r.id = ? AND s.rank = 0 AND g.kind = ? AND g.count > 0 "
        "ORDER BY s.attempt DESC, g.key DESC LIMIT 1",
        (run_id, kind),
    ).fetchone()
    if found is None:
        return None
    group = Group(*found)
    newest = groups.newest_record(connection, group)
    step, values = newest or Records(connection).read(group, group.count - 1)
    return group.layout, step, values


class Records:
    """Single records of groups, as they came in. Keeps the block that was read last of each group."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._held: dict[int, tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]] = {}
        self._groups: dict[int, Group] = {}

    def group(self, key: int) -> Group:
        """The group of that key."""
        if key not in self._groups:
            fields = self._connection.execute(
                f"SELECT {groups.FIELDS} FROM groups g WHERE g.key = ?", (key,)
            ).fetchone()
            self._groups[key] = Group(*fields)
        return self._groups[key]

    def read(self, group: Group, number: int) -> tuple[int, npt.NDArray[np.float32]]:
        """The step and the values, shape (rows, columns), of record `number`."""
        compacted = number < group.compacted
        block = number // group.block if compacted else -1
        if group.key not in self._held or self._held[group.key][0] != block:
            if compacted:
                self._held[group.key] = (block, *self._block(group, block))
            else:
                tail = groups.read_tail(self._connection, group)
                self._held[group.key] = (block, tail.steps, tail.values)
        _, steps, values = self._held[group.key]
        offset = number - (block * group.block if compacted else group.compacted)
        return int(steps[offset]), values[offset]

    def _block(
        self, group: Group, block: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        (steps,) = self._connection.execute(
            "SELECT steps FROM blocks WHERE grp = ? AND level = 0 AND block = ?",
            (group.key, block),
        ).fetchone()
        values = np.empty((group.columns, group.rows, group.block), "<f4")
        for column in range(group.columns):
            bodies = [
                body
                for tile in range(-(-group.rows // tiles.TILE_ROWS))
                for (body,) in self._connection.execute(
                    "SELECT body FROM tiles WHERE grp = ? AND level = 0 AND col = ? AND tile = ? "
                    "AND block = ?",
                    (group.key, column, tile, block),
                )
            ]
            values[column] = tiles.unpack_tiles(bodies, "<f4", group.rows, group.block)
        return tiles.unpack_steps(steps), np.ascontiguousarray(values.transpose(2, 1, 0))


def scalar_names(connection: sqlite3.Connection, run_id: str) -> list[str]:
    """Names of a run's scalars; see `Store.scalar_names`."""
    run = catalog.find_key(connection, run_id)
    return [] if run is None else list(catalog.names(connection, run))
