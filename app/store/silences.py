"""Times in which nothing was heard of a run or of one of its ranks, and the alerts they cause."""

import sqlite3
from collections.abc import Sequence

from trainvitals.app.store import catalog, outbox
from trainvitals.app.store.types import AlertRow, Silence


def silences(connection: sqlite3.Connection, run_id: str | None) -> list[Silence]:
    """The newest silence of each rank of a run (None: of every run), the earliest first."""
    rows = connection.execute(
        """
        SELECT r.id, s.rank, s.since, s.step, s.heard FROM silences s JOIN runs r ON r.key = s.run
        WHERE r.deleted IS NULL AND (?1 IS NULL OR r.id = ?1) AND s.since = (
            SELECT MAX(t.since) FROM silences t WHERE t.run = s.run AND t.rank = s.rank
        )
        ORDER BY s.since, s.rank
        """,
        (run_id,),
    )
    return [
        Silence(run=row[0], rank=row[1], since=row[2], step=row[3], heard=row[4]) for row in rows
    ]


def note(connection: sqlite3.Connection, silence: Silence, alerts: Sequence[AlertRow]) -> None:
    """Keep a silence that has begun or is over, and its alerts. Raises NotFound."""
    run = catalog.run_key(connection, silence.run)
    connection.execute(
        "INSERT INTO silences (run, rank, since, step, heard) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (run, rank, since) DO UPDATE SET heard = excluded.heard",
        (run, silence.rank, silence.since, silence.step, silence.heard),
    )
    outbox.add(connection, alerts)
    connection.execute("UPDATE runs SET version = version + 1 WHERE key = ?", (run,))
