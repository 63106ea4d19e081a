"""What the list of runs shows of each run, kept so that a thousand of them come at once."""

import sqlite3

from trainvitals.app.store.types import Card


def missing(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Runs whose card is of an earlier version or not there, the newest first."""
    rows = connection.execute(
        "SELECT r.id FROM runs r LEFT JOIN cards c ON c.run = r.key "
        "WHERE r.deleted IS NULL AND r.archived IS NULL AND c.version IS NOT r.version ORDER BY r.created DESC LIMIT ?",
        (limit,),
    )
    return [run for (run,) in rows]


def put(connection: sqlite3.Connection, card: Card, now: float) -> None:
    """Keep a card, in place of an earlier one. That of a run that was deleted meanwhile is dropped."""
    connection.execute(
        "INSERT INTO cards (run, version, updated, body) SELECT key, ?, ?, ? FROM runs WHERE id = ? "
        "ON CONFLICT (run) DO UPDATE SET version = excluded.version, updated = excluded.updated, "
        "body = excluded.body",
        (card.version, now, card.body, card.run),
    )


def cards(connection: sqlite3.Connection, since: float, limit: int) -> list[Card]:
    """The cards that were made at `since` or later, of the newest runs, the newest first."""
    rows = connection.execute(
        "SELECT r.id, c.version, c.body FROM runs r JOIN cards c ON c.run = r.key "
        "WHERE r.deleted IS NULL AND r.archived IS NULL AND c.updated >= ? ORDER BY r.created DESC LIMIT ?",
        (since, limit),
    )
    return [Card(run=row[0], version=row[1], body=row[2]) for row in rows]


def heard(connection: sqlite3.Connection, since: float) -> dict[str, float]:
    """When each run that was heard of since `since` was heard of last."""
    rows = connection.execute(
        "SELECT id, last_seen FROM runs WHERE last_seen >= ? AND deleted IS NULL AND archived IS NULL",
        (since,),
    )
    return dict(rows.fetchall())


def count(connection: sqlite3.Connection) -> int:
    """How many runs there are."""
    (number,) = connection.execute(
        "SELECT COUNT(*) FROM runs r WHERE deleted IS NULL AND archived IS NULL"
    ).fetchone()
    return int(number)
