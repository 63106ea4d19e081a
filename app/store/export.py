"""All there is of a run, as rows: read part by part, so that a run of any length takes little memory.

Every part is a transaction of its own. What a training sends meanwhile may be left out, nothing comes twice.
"""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np

from trainvitals.app.rules.finding import Finding
from trainvitals.app.store import bars, catalog, findings, groups, tiles
from trainvitals.app.store.connection import Database
from trainvitals.app.store.groups import Group
from trainvitals.app.store.read import Records
from trainvitals.hooks.wire.bins import edges
from trainvitals.hooks.wire.records import Event, GroupKind

What = Literal["scalars", "activations", "parameters", "histograms", "events", "findings"]
WHATS: Final[tuple[What, ...]] = get_args(What)
Type = Literal["text", "int", "float", "bool", "json"]
Row = tuple[Any, ...]

_KINDS: Final[dict[str, GroupKind]] = {"activations": "activation", "parameters": "parameter"}
_RECORDS: Final = 64
"""Records of histograms or events read at a time."""
_EDGES: Final = edges().tolist()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind."""

    columns: dict[str, Type]
    parts: Iterator[list[Row]]
    """The rows, some at a time; None for what was not recorded. Raises StoreError on the way."""


def table(database: Database, run: str, what: What) -> Table:
    """The rows of a run. Raises StoreError."""
    where: dict[str, Type] = {"attempt": "text", "step": "int", "superseded": "bool"}
    match what:
        case "scalars":
            columns = where | {"name": "text", "value": "float"}
            return Table(columns, _of_groups(database, run, "scalar", _scalars))
        case "activations" | "parameters":
            kind = _KINDS[what]
            fields = _fields(database, run, kind)
            columns = where | {"name": "text"} | dict.fromkeys(fields, "float")
            return Table(columns, _of_groups(database, run, kind, _statistics(fields)))
        case "histograms":
            columns = where | {"kind": "text", "name": "text"}
            columns |= {"low": "float", "high": "float", "count": "int"}
            return Table(columns, _of_groups(database, run, None, _histograms))
        case "events":
            columns = where | {"rank": "int", "time": "float", "kind": "text", "layer": "text"}
            columns |= {"message": "text", "data": "json"}
            return Table(columns, _events(database, run))
        case "findings":
            names = Finding.__struct_fields__
            kinds: dict[str, Type] = {"first_step": "int", "last_step": "int", "root": "bool"}
            kinds |= {"layers": "json", "evidence": "json"}
            return Table({name: kinds.get(name, "text") for name in names}, _found(database, run))


@dataclass(frozen=True, slots=True)
class _Source:
    """A group, and what holds for all of its rows."""

    group: Group
    attempt: str
    end: int | None
    """The first step that a later attempt recorded anew."""

    def head(self, step: int) -> Row:
        """The first three columns."""
        return (self.attempt, step, self.end is not None and step >= self.end)


_Reader = Callable[[sqlite3.Connection, _Source, int], tuple[int, list[Row]]]
"""Rows from a record of a group on, and the record after them: the same one where there is no more."""


def _of_groups(
    database: Database, run: str, kind: str | None, read: _Reader
) -> Iterator[list[Row]]:
    for key in _keys(database, run, kind):
        first = 0
        while True:
            with database.read() as connection:
                source = _source(connection, key)
                after, rows = (first, []) if source is None else read(connection, source, first)
            if after == first:
                break
            first = after
            if rows:
                yield rows


def _keys(database: Database, run: str, kind: str | None) -> list[int]:
    with database.read() as connection:
        return [
            key
            for (key,) in connection.execute(
                "SELECT g.key FROM groups g JOIN streams s ON s.key = g.stream JOIN runs r ON r.key = s.run "
                "WHERE r.id = ?1 AND s.rank = 0 AND (g.kind = ?2 OR (?2 IS NULL AND g.number >= 0)) "
                "ORDER BY s.attempt, g.key",
                (run, kind),
            )
        ]


def _source(connection: sqlite3.Connection, key: int) -> _Source | None:
    """The group as it is now; None once its run was purged."""
    row = connection.execute(
        f"SELECT s.run, s.attempt, {groups.FIELDS} FROM groups g JOIN streams s ON s.key = g.stream "
        "WHERE g.key = ?",
        (key,),
    ).fetchone()
    if row is None:
        return None
    ends = catalog.view_ends(connection, row[0])
    return _Source(Group(*row[2:]), row[1], ends[row[1]])


def _scalars(connection: sqlite3.Connection, source: _Source, first: int) -> tuple[int, list[Row]]:
    group = source.group
    names = dict(connection.execute("SELECT key, name FROM names"))
    found: list[tuple[int, int, float]] = []
    if first < group.compacted:
        block = first // group.block
        (body,) = connection.execute(
            "SELECT steps FROM blocks WHERE grp = ? AND level = 0 AND block = ?", (group.key, block)
        ).fetchone()
        steps, after = tiles.unpack_steps(body), first + group.block
        for column, body in connection.execute(
            "SELECT col, body FROM tiles WHERE grp = ? AND level = 0 AND block = ?",
            (group.key, block),
        ):
            values = tiles.unpack_values(body, "<f8", 1, group.block)[0]
            recorded = np.flatnonzero(values.view("<u8") != tiles.MISSING_BITS_64)
            pairs = zip(recorded.tolist(), values[recorded].tolist(), strict=True)
            found += [(record, column, value) for record, value in pairs]
        found.sort(key=lambda item: item[:2])
    else:
        tail = groups.read_tail(connection, group)
        steps, after = tail.steps, group.count
        columns = (tail.record.tolist(), tail.column.tolist(), tail.scalar.tolist())
        found = [item for item in zip(*columns, strict=True) if item[0] >= first - group.compacted]
    at = steps.tolist()
    return after, [(*source.head(at[record]), names[name], x) for record, name, x in found]


def _fields(database: Database, run: str, kind: GroupKind) -> list[str]:
    """Statistics of all layouts of a kind, in the order of their first appearance."""
    found: dict[str, None] = {}
    for key in _keys(database, run, kind):
        with database.read() as connection:
            source = _source(connection, key)
        found |= dict.fromkeys(source.group.layout.columns if source else ())
    return list(found)


def _statistics(fields: list[str]) -> _Reader:
    def read(connection: sqlite3.Connection, source: _Source, first: int) -> tuple[int, list[Row]]:
        group, layout = source.group, source.group.layout
        after = min(first - first % group.block + group.block, group.count)
        places = [layout.columns.index(name) if name in layout.columns else -1 for name in fields]
        records, rows = Records(connection), []
        missing = tiles.MISSING["<f4"].view("<u4")
        for number in range(first, after):
            step, values = records.read(group, number)
            cells = values.astype(object)
            cells[np.ascontiguousarray(values).view("<u4") == missing] = None
            padded = np.append(cells, np.full((len(cells), 1), None), axis=1)[:, places]
            head = source.head(step)
            for line, own in zip(layout.rows, padded.tolist(), strict=True):
                if any(value is not None for value in own):
                    rows.append((*head, line.name, *own))
        return after, rows

    return read


def _histograms(
    connection: sqlite3.Connection, source: _Source, first: int
) -> tuple[int, list[Row]]:
    """Here `first` counts the histograms of the group."""
    group, rows = source.group, []
    names = [line.name for line in group.layout.rows]
    found = connection.execute(
        "SELECT step, kind, body FROM histograms WHERE grp = ? ORDER BY seq, kind, step LIMIT ? OFFSET ?",
        (group.key, _RECORDS, first),
    ).fetchall()
    for step, kind, body in found:
        counts = bars.unpack(body, group.rows)
        head = source.head(step)
        for line, place in zip(*np.nonzero(counts), strict=True):
            low, high = _EDGES[place], _EDGES[place + 1]
            rows.append((*head, kind, names[line], low, high, int(counts[line, place])))
    return first + len(found), rows


def _events(database: Database, run: str) -> Iterator[list[Row]]:
    decoder = msgspec.msgpack.Decoder(Event)
    with database.read() as connection:
        key = catalog.find_key(connection, run)
        streams = connection.execute(
            "SELECT key, attempt, rank FROM streams WHERE run = ? ORDER BY attempt, rank", (key,)
        ).fetchall()
        ends = {} if key is None else catalog.view_ends(connection, key)
    for stream, attempt, rank in streams:
        after, end = -1, ends.get(attempt)
        while True:
            with database.read() as connection:
                found = connection.execute(
                    "SELECT seq, body FROM events WHERE stream = ? AND seq > ? ORDER BY seq LIMIT ?",
                    (stream, after, _RECORDS),
                ).fetchall()
            if not found:
                break
            after = found[-1][0]
            events = [decoder.decode(body) for _, body in found]
            yield [
                (
                    *(attempt, e.step, end is not None and e.step >= end),
                    *(rank, e.time, e.kind, e.layer, e.message, e.data),
                )
                for e in events
            ]


def _found(database: Database, run: str) -> Iterator[list[Row]]:
    with database.read() as connection:
        found = findings.findings(connection, run)
    yield [tuple(getattr(item, name) for name in Finding.__struct_fields__) for item in found]
