"""Histograms of one row at chosen steps, found one by one and unpacked together."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainvitals.app.store import bars, catalog, groups
from trainvitals.app.store.cover import NEVER
from trainvitals.app.store.groups import Group
from trainvitals.app.store.types import HistogramSeries
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.records import HistogramKind

_Found = tuple[int, int]
"""Step and `seq` of a record with histograms."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A group that has the row, and its steps that count."""

    key: int
    rows: int
    row: int
    kind: str
    low: int
    high: int

    def some(self, connection: sqlite3.Connection, limit: int) -> list[_Found]:
        """The first ones, the last of each step."""
        return connection.execute(
            "SELECT step, MAX(seq) FROM histograms WHERE grp = ? AND kind = ? AND step >= ? AND step < ? "
            "GROUP BY step ORDER BY step LIMIT ?",
            (self.key, self.kind, self.low, self.high, limit),
        ).fetchall()

    def newest(self, connection: sqlite3.Connection, until: int) -> _Found | None:
        """The last one up to and with step `until`."""
        found: _Found | None = connection.execute(
            "SELECT step, seq FROM histograms WHERE grp = ? AND kind = ? AND step >= ? AND step <= ? "
            "ORDER BY step DESC, seq DESC LIMIT 1",
            (self.key, self.kind, self.low, min(until, self.high - 1)),
        ).fetchone()
        return found

    def bodies(self, connection: sqlite3.Connection, found: Sequence[_Found]) -> list[bytes]:
        """Packed counts of all rows."""
        return [
            body
            for step, seq in found
            for (body,) in connection.execute(
                "SELECT body FROM histograms WHERE grp = ? AND kind = ? AND step = ? AND seq = ?",
                (self.key, self.kind, step, seq),
            )
        ]


def histograms(
    connection: sqlite3.Connection,
    run_id: str,
    kind: HistogramKind,
    name: str,
    start: int | None,
    stop: int | None,
    times: int,
) -> HistogramSeries:
    """Histograms of one row, thinned to `times`; see `Store.histograms`."""
    run = catalog.find_key(connection, run_id)
    sources = [] if run is None else _sources(connection, run, kind, name, start, stop)
    chosen = _choose(connection, sources, times)
    steps: list[int] = []
    parts = [np.empty((0, BINS), np.int64)]
    for source in sources:
        own = [(step, seq) for step, (seq, holder) in chosen.items() if holder is source]
        if own:
            bodies = source.bodies(connection, own)
            steps += [step for step, _ in own]
            parts.append(bars.unpack_row(bodies, source.rows, source.row).astype(np.int64))
    order = np.argsort(np.array(steps, np.int64))
    counts = np.concatenate(parts)[order]
    filled = counts.any(axis=1)  # a row of zeros is "none"
    return HistogramSeries(np.array(steps, np.int64)[order][filled], counts[filled])


def _sources(
    connection: sqlite3.Connection,
    run: int,
    kind: str,
    name: str,
    start: int | None,
    stop: int | None,
) -> list[_Source]:
    """The groups to look in, those of later attempts later."""
    ends = catalog.view_ends(connection, run)
    found = []
    for attempt, *fields in connection.execute(
        f"SELECT s.attempt, {groups.FIELDS} FROM groups g JOIN streams s ON s.key = g.stream "
        "WHERE s.run = ? AND s.rank = 0 AND g.number >= 0 ORDER BY s.attempt, g.key",
        (run,),
    ).fetchall():
        group = Group(*fields)
        row = next((i for i, r in enumerate(group.layout.rows) if r.name == name), None)
        if row is not None:
            limits = [limit for limit in (stop, ends[attempt]) if limit is not None]
            high = min(limits, default=NEVER)
            found.append(_Source(group.key, group.rows, row, kind, start or 0, high))
    return found


def _choose(
    connection: sqlite3.Connection, sources: Sequence[_Source], times: int
) -> dict[int, tuple[int, _Source]]:
    """`seq` and source by step: all where they are few, else the last one before each of `times` steps."""
    few: dict[int, tuple[int, _Source]] = {}
    for source in sources:
        for step, seq in source.some(connection, times + 1):
            few[step] = (seq, source)
    if len(few) <= times:
        return few
    ends = [found for s in sources if (found := s.newest(connection, NEVER)) is not None]
    chosen: dict[int, tuple[int, _Source]] = {}
    for target in np.linspace(max(step for step, _ in ends), min(few), times).round().tolist():
        best: tuple[int, int, _Source] | None = None
        for source in sources:
            newest = source.newest(connection, int(target))
            if newest is not None and (best is None or newest[0] >= best[0]):
                best = (*newest, source)
        if best is not None:
            chosen[best[0]] = best[1:]
    return chosen
