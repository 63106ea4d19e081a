"""What there is: runs, their processes, layouts, scalars and events."""

import sqlite3
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from trainvitals.app.store import groups
from trainvitals.app.store.groups import Group
from trainvitals.app.store.types import NotFound, Run, Shelf, StreamState
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.records import Batch, Event, Layout, Start, Value

_event_decoder = msgspec.msgpack.Decoder(Event)

PURGING: Final = "r.id LIKE 'purged %'"
"""A run that is being removed for good; an id that came in has no space."""

_RUN = """
    SELECT r.id, r.project, r.name, r.config, r.tags, r.environment, r.world_size, r.created,
           r.last_seen, r.version, r.key, r.archived, r.deleted
    FROM runs r
"""

SHELVES: Final[dict[Shelf, str]] = {
    "active": "r.deleted IS NULL AND r.archived IS NULL",
    "archived": "r.deleted IS NULL AND r.archived IS NOT NULL",
    "deleted": f"r.deleted IS NOT NULL AND NOT {PURGING}",
}
"""Which runs lie on a shelf, as SQL on `runs r`."""


def run_key(connection: sqlite3.Connection, run: str) -> int:
    """Key of a run. Raises NotFound."""
    key = find_key(connection, run)
    if key is None:
        raise NotFound(f"There is no run {run[:80]!r}.")
    return key


def find_key(connection: sqlite3.Connection, run: str) -> int | None:
    """Key of a run, None where there is none or it is deleted."""
    row = connection.execute(
        "SELECT key FROM runs WHERE id = ? AND deleted IS NULL", (run,)
    ).fetchone()
    return None if row is None else int(row[0])


def runs(connection: sqlite3.Connection, limit: int, shelf: Shelf) -> list[Run]:
    """The newest runs of a shelf, newest first."""
    return select(connection, f"WHERE {SHELVES[shelf]}", limit)


def select(
    connection: sqlite3.Connection, which: str, limit: int, values: tuple[object, ...] = ()
) -> list[Run]:
    """The newest runs `r` that the SQL `which` (joins, then WHERE, with `values`) leaves, newest first."""
    rows = connection.execute(
        f"{_RUN} {which} ORDER BY r.created DESC, r.key DESC LIMIT ?", (*values, limit)
    )
    return [_run(connection, row) for row in rows.fetchall()]


def run(connection: sqlite3.Connection, run_id: str) -> Run | None:
    """One run that is not deleted."""
    row = connection.execute(f"{_RUN} WHERE r.id = ? AND r.deleted IS NULL", (run_id,)).fetchone()
    return None if row is None else _run(connection, row)


def _run(connection: sqlite3.Connection, row: tuple) -> Run:  # type: ignore[type-arg]
    streams = connection.execute(
        "SELECT attempt, rank, last_step, end_status, end_message FROM streams WHERE run = ? "
        "ORDER BY attempt, rank",
        (row[10],),
    ).fetchall()
    attempts = list(dict.fromkeys(stream[0] for stream in streams))
    last_step, ended, message = -1, "", ""
    for attempt, rank, step, end_status, end_message in streams:
        if rank == 0:
            last_step = last_step if step is None else step
            if attempt == attempts[-1]:
                ended, message = end_status, end_message
    return Run(
        id=row[0],
        project=row[1],
        name=row[2],
        config=msgspec.msgpack.decode(row[3]),
        tags=msgspec.msgpack.decode(row[4]),
        environment=msgspec.msgpack.decode(row[5]),
        world_size=row[6],
        created=row[7],
        last_seen=row[8],
        version=row[9],
        attempts=attempts,
        last_step=last_step,
        status_reported=ended,
        end_message=message,
        archived=row[11],
        deleted=row[12],
    )


def mark(
    connection: sqlite3.Connection,
    run_id: str,
    column: Literal["archived", "deleted"],
    at: float | None,
) -> bool:
    """Note that a run was archived or deleted at a time, or with None no longer is; whether that changed anything."""
    changed = connection.execute(
        f"UPDATE runs SET {column} = ?1, version = version + 1 WHERE id = ?2 "
        f"AND ({column} IS NULL) = (?1 IS NOT NULL) AND ('{column}' = 'deleted' OR deleted IS NULL)",
        (at, run_id),
    )
    return changed.rowcount > 0


def is_deleted(connection: sqlite3.Connection, run_id: str) -> bool:
    """Whether a run of that id was deleted for good."""
    found = connection.execute("SELECT 1 FROM gone WHERE id = ?", (run_id,)).fetchone()
    return found is not None


def streams(connection: sqlite3.Connection, run_id: str) -> list[StreamState]:
    """How far each process of a run is, by attempt and rank."""
    rows = connection.execute(
        "SELECT s.attempt, s.rank, s.next, COALESCE(s.last_step, -1), s.last_seen, s.end_status "
        "FROM streams s JOIN runs r ON r.key = s.run WHERE r.id = ? ORDER BY s.attempt, s.rank",
        (run_id,),
    )
    names = StreamState.__struct_fields__
    return [StreamState(**dict(zip(names, row, strict=True))) for row in rows]


def next_seq(connection: sqlite3.Connection, run_id: str, attempt: str, rank: int) -> int:
    """`seq` of the record of a stream that is expected next."""
    row = connection.execute(
        "SELECT s.next FROM streams s JOIN runs r ON r.key = s.run "
        "WHERE r.id = ? AND s.attempt = ? AND s.rank = ?",
        (run_id, attempt, rank),
    ).fetchone()
    return 0 if row is None else int(row[0])


def stream(connection: sqlite3.Connection, run_id: str, attempt: str, rank: int) -> tuple[int, int]:
    """Keys of a stream's run and of the stream itself. Raises NotFound."""
    row = connection.execute(
        "SELECT r.key, s.key FROM streams s JOIN runs r ON r.key = s.run "
        "WHERE r.id = ? AND s.attempt = ? AND s.rank = ?",
        (run_id, attempt, rank),
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no stream {attempt}/{rank} of a run {run_id[:80]!r}.")
    return int(row[0]), int(row[1])


def start(connection: sqlite3.Connection, batch: Batch, record: Start, received: float) -> None:
    """Note a new stream, and its run: a new one, or one that goes on under what `record` says of it."""
    encode = msgspec.msgpack.encode
    about = (
        record.project,
        record.name,
        encode(record.config),
        encode(record.tags),
        encode(record.environment),
        record.world_size,
    )
    known = connection.execute("SELECT key FROM runs WHERE id = ?", (batch.run,)).fetchone()
    if known is None:
        key = connection.execute(
            "INSERT INTO runs (id, created, last_seen, project, name, config, tags, environment, "
            "world_size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (batch.run, min(record.time, received), received, *about),
        ).lastrowid
    else:
        (key,) = known
        # Rank 0 of the newest attempt has the say, whatever comes in first.
        (newest,) = connection.execute(
            "SELECT COALESCE(MAX(attempt), '') FROM streams WHERE run = ?", (key,)
        ).fetchone()
        if batch.attempt > newest or (batch.rank == 0 and batch.attempt == newest):
            connection.execute(
                "UPDATE runs SET project = ?, name = ?, config = ?, tags = ?, environment = ?, "
                "world_size = ? WHERE key = ?",
                (*about, key),
            )
    connection.execute(
        "INSERT INTO streams (run, attempt, rank) VALUES (?, ?, ?)",
        (key, batch.attempt, batch.rank),
    )


def configure(connection: sqlite3.Connection, run: int, values: Mapping[str, Value]) -> None:
    """Add to a run's configuration, as far as there is room."""
    (held,) = connection.execute("SELECT config FROM runs WHERE key = ?", (run,)).fetchone()
    merged = msgspec.msgpack.encode(msgspec.msgpack.decode(held) | values)
    if len(merged) <= limits.MAX_JSON_BYTES:
        connection.execute("UPDATE runs SET config = ? WHERE key = ?", (merged, run))


def touch(connection: sqlite3.Connection, batch: Batch, now: float, *, changed: bool) -> None:
    """Note that a run and one of its processes were heard of, and whether that brought anything new.

    The clock may have been put back since the last time; what it says now is what silence is measured by.
    """
    connection.execute(
        "UPDATE runs SET last_seen = ?, version = version + ? WHERE id = ?",
        (now, int(changed), batch.run),
    )
    connection.execute(
        "UPDATE streams SET last_seen = ? WHERE attempt = ? AND rank = ? "
        "AND run = (SELECT key FROM runs WHERE id = ?)",
        (now, batch.attempt, batch.rank, batch.run),
    )


def names(connection: sqlite3.Connection, run: int) -> dict[str, int]:
    """Keys of a run's scalars by name, in the order of their first appearance."""
    return dict(
        connection.execute("SELECT name, key FROM names WHERE run = ? ORDER BY key", (run,))
    )


def add_name(connection: sqlite3.Connection, run: int, name: str) -> int:
    """The key of a new scalar."""
    cursor = connection.execute("INSERT INTO names (run, name) VALUES (?, ?)", (run, name))
    return cursor.lastrowid or 0


def layouts(connection: sqlite3.Connection, run_id: str) -> list[Layout]:
    """The newest layout of each group of rank 0 of the newest attempt that has any."""
    rows = connection.execute(
        f"SELECT s.attempt, {groups.FIELDS} FROM groups g JOIN streams s ON s.key = g.stream "
        "JOIN runs r ON r.key = s.run WHERE r.id = ? AND s.rank = 0 AND g.number >= 0 "
        "ORDER BY s.attempt, g.key",
        (run_id,),
    ).fetchall()
    newest = {row[2]: Group(*row[1:]) for row in rows if row[0] == rows[-1][0]}
    return [newest[number].layout for number in sorted(newest)]


def view_ends(connection: sqlite3.Connection, run: int) -> dict[str, int | None]:
    """For each attempt the step from which on a later attempt's records stand in the charts; None for never."""
    rows = connection.execute(
        "SELECT attempt, first_step FROM streams WHERE run = ? AND rank = 0 ORDER BY attempt DESC",
        (run,),
    )
    ends: dict[str, int | None] = {}
    low: int | None = None
    for attempt, first in rows:
        ends[attempt] = low
        if first is not None:
            low = first if low is None else min(low, first)
    return ends


def resumes(connection: sqlite3.Connection, run_id: str) -> list[int]:
    """The first step of each attempt but the first one."""
    rows = connection.execute(
        "SELECT s.first_step FROM streams s JOIN runs r ON r.key = s.run "
        "WHERE r.id = ? AND s.rank = 0 AND s.first_step IS NOT NULL ORDER BY s.attempt",
        (run_id,),
    )
    return [step for (step,) in rows][1:]


def events(connection: sqlite3.Connection, run_id: str, limit: int) -> list[Event]:
    """The newest events of all ranks, in the order of their steps, without those of overtaken steps."""
    key = find_key(connection, run_id)
    if key is None:
        return []
    ends = view_ends(connection, key)
    found: list[Event] = []
    rows = connection.execute(
        "SELECT s.attempt, e.step, e.body FROM events e JOIN streams s ON s.key = e.stream "
        "WHERE s.run = ? ORDER BY e.step DESC, s.attempt DESC, s.rank DESC, e.seq DESC",
        (key,),
    )
    for attempt, step, body in rows:
        end = ends.get(attempt)
        if end is None or step < end:
            found.append(_event_decoder.decode(body))
            if len(found) == limit:
                break
    return found[::-1]
