"""What a retention policy removes: the plan, in the order in which it is carried out."""

import sqlite3
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from trainvitals.app.retention import DAY_S, Policy
from trainvitals.app.store import erase
from trainvitals.app.store.connection import Database

What = Literal["purge", "delete", "histograms"]

LIVE_S: Final = 3600.0
"""A run that was heard of less than this many seconds ago is left alone."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to remove."""

    key: int
    """Of the run's row."""
    run: str
    project: str
    name: str
    what: What
    """delete: it can still be restored; purge: it is gone, and its room is free."""
    reason: str
    bytes: int
    """About what it takes in the file; 0 for what only deletes."""
    deleted: float | None
    """When the run was deleted, as the plan saw it: one that was restored since is left alone."""


class _Run(msgspec.Struct, frozen=True, array_like=True):
    key: int
    run: str
    project: str
    name: str
    last_seen: float
    archived: float | None
    deleted: float | None
    place: int
    """Among the runs of its project that are in sight, the newest is 1."""


def plan(connection: sqlite3.Connection, policy: Policy, now: float) -> list[Removal]:
    """What `policy` removes at `now` (Unix seconds): by age and number first, then for the size."""
    found = _runs(connection)
    removals = [
        removal for run in found if (removal := _due(connection, run, policy, now)) is not None
    ]
    if policy.size is not None:
        over = used_bytes(connection) - policy.size
        over -= sum(item.bytes for item in removals)
        done = {(item.key, item.what) for item in removals}
        for item in _by_age(connection, found, now):
            if over <= 0:
                break
            if (item.key, item.what) not in done:
                removals.append(item)
                over -= item.bytes
    return removals


def carry_out(database: Database, removal: Removal, now: float) -> Iterator[None]:
    """Do it, one short transaction a step; see `erase`."""
    if removal.what == "histograms":
        yield from erase.histograms(database, removal.key)
        return
    with database.write() as connection:
        unchanged = connection.execute(
            "UPDATE runs SET deleted = COALESCE(deleted, ?), version = version + 1 "
            "WHERE key = ? AND deleted IS ? AND last_seen <= ?",
            (now, removal.key, removal.deleted, now - LIVE_S),
        ).rowcount
    if unchanged and removal.what == "purge":
        yield from erase.purge(database, removal.key)


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the pages in use take, bytes."""
    (size,), (count,), (free,) = (
        connection.execute(f"PRAGMA {name}").fetchone()
        for name in ("page_size", "page_count", "freelist_count")
    )
    return int(size * (count - free))


def run_bytes(connection: sqlite3.Connection, key: int, *, tables: tuple[str, ...]) -> int:
    """About what a run takes in some `tables` of `BODIES`, bytes."""
    return sum(
        connection.execute(
            f"SELECT CAST(TOTAL({expression}) AS INTEGER) FROM {table} t JOIN {path}", (key,)
        ).fetchone()[0]
        for table, (expression, path) in BODIES.items()
        if table in tables
    )


_BY_GROUP: Final = "groups g ON g.key = t.grp JOIN streams s ON s.key = g.stream WHERE s.run = ?"
_BY_STREAM: Final = "streams s ON s.key = t.stream WHERE s.run = ?"
BODIES: Final = {
    "tiles": ("LENGTH(t.body) + 40", _BY_GROUP),
    "blocks": ("LENGTH(t.steps) + 40", _BY_GROUP),
    "tail": ("LENGTH(t.body) + LENGTH(t.steps) + 40", _BY_GROUP),
    "histograms": ("LENGTH(t.body) + 40", _BY_GROUP),
    "log": ("LENGTH(t.body) + 40", _BY_STREAM),
    "events": ("LENGTH(t.body) + 40", _BY_STREAM),
}
"""The tables that grow with a run: bytes of a row, with what its keys and their index take, and the way to the run."""


def _runs(connection: sqlite3.Connection) -> list[_Run]:
    """All runs, those that were silent for longest first."""
    rows = connection.execute(
        "SELECT key, id, project, name, last_seen, archived, deleted, ROW_NUMBER() OVER "
        "(PARTITION BY project, archived IS NULL AND deleted IS NULL ORDER BY created DESC, key DESC) "
        "FROM runs ORDER BY last_seen, key"
    )
    return [msgspec.convert(row, _Run) for row in rows]


def _due(connection: sqlite3.Connection, run: _Run, policy: Policy, now: float) -> Removal | None:
    """What is due for one run by age and number."""
    silent = now - run.last_seen
    if silent < LIVE_S:
        return None
    if run.deleted is not None:
        undo_s = policy.undo_days * DAY_S
        if max(run.deleted, run.last_seen) + undo_s <= now:
            return _whole(connection, run, f"deleted {policy.undo_days:g} days ago or earlier")
        return None
    if run.archived is not None:
        return None
    keep = policy.of(run.project)
    if keep.days is not None and silent > keep.days * DAY_S:
        return _removal(run, "delete", f"silent for {silent / DAY_S:.0f} days, kept {keep.days:g}")
    if keep.runs is not None and run.place > keep.runs:
        return _removal(run, "delete", f"number {run.place} of its project, kept {keep.runs}")
    if keep.histogram_days is not None and silent > keep.histogram_days * DAY_S:
        reason = f"silent for {silent / DAY_S:.0f} days, kept {keep.histogram_days:g}"
        return _histograms(connection, run, reason)
    return None


def _by_age(connection: sqlite3.Connection, found: list[_Run], now: float) -> Iterator[Removal]:
    """What may go for the size: deleted runs, then histograms, then whole runs, the oldest of each first."""
    reason = "the database is over its size"
    idle = [run for run in found if now - run.last_seen >= LIVE_S]
    yield from (_whole(connection, run, reason) for run in idle if run.deleted is not None)
    kept = [run for run in idle if run.deleted is None and run.archived is None]
    for run in kept:
        if (removal := _histograms(connection, run, reason)) is not None:
            yield removal
    rest = tuple(table for table in BODIES if table != "histograms")
    for run in kept:
        yield _removal(run, "purge", reason, run_bytes(connection, run.key, tables=rest))


def _whole(connection: sqlite3.Connection, run: _Run, reason: str) -> Removal:
    return _removal(run, "purge", reason, run_bytes(connection, run.key, tables=tuple(BODIES)))


def _histograms(connection: sqlite3.Connection, run: _Run, reason: str) -> Removal | None:
    size = run_bytes(connection, run.key, tables=("histograms",))
    return _removal(run, "histograms", reason, size) if size else None


def _removal(run: _Run, what: What, reason: str, size: int = 0) -> Removal:
    return Removal(
        key=run.key,
        run=run.run,
        project=run.project,
        name=run.name,
        what=what,
        reason=reason,
        bytes=size,
        deleted=run.deleted,
    )
