"""What the list of runs shows of each run, kept so that a thousand of them come at once."""

import sqlite3

from trainvitals.app.store import catalog
from trainvitals.app.store.catalog import SHELVES
from trainvitals.app.store.types import Card, Run, Shelf


def missing(connection: sqlite3.Connection, limit: int, shelf: Shelf, before: float) -> list[Run]:
    """Runs whose card is to be made, the newest first; see `Store.missing_cards`."""
    late = "c.version IS NOT r.version AND MIN(c.updated, r.last_seen) < ?"
    stale = "c.version IS NULL" + ("" if shelf == "deleted" else f" OR ({late})")
    which = f"LEFT JOIN cards c ON c.run = r.key WHERE {SHELVES[shelf]} AND ({stale})"
    return catalog.select(connection, which, limit, () if shelf == "deleted" else (before,))


def put(connection: sqlite3.Connection, card: Card, now: float) -> None:
    """Keep a card, in place of an earlier one. That of a run that was deleted meanwhile is dropped."""
    connection.execute(
        "INSERT INTO cards (run, version, updated, body) SELECT key, ?, ?, ? FROM runs WHERE id = ? "
        "ON CONFLICT (run) DO UPDATE SET version = excluded.version, updated = excluded.updated, "
        "body = excluded.body",
        (card.version, now, card.body, card.run),
    )


def cards(connection: sqlite3.Connection, since: float, limit: int, shelf: Shelf) -> list[Card]:
    """The cards that were made at `since` or later, of the newest runs, the newest first."""
    rows = connection.execute(
        "SELECT r.id, c.version, c.body FROM runs r JOIN cards c ON c.run = r.key "
        f"WHERE {SHELVES[shelf]} AND c.updated >= ? ORDER BY r.created DESC LIMIT ?",
        (since, limit),
    )
    return [Card(run=row[0], version=row[1], body=row[2]) for row in rows]


def heard(connection: sqlite3.Connection, since: float, shelf: Shelf) -> dict[str, float]:
    """When each run that was heard of since `since` was heard of last."""
    rows = connection.execute(
        f"SELECT r.id, r.last_seen FROM runs r WHERE r.last_seen >= ? AND {SHELVES[shelf]}",
        (since,),
    )
    return dict(rows.fetchall())


def count(connection: sqlite3.Connection, shelf: Shelf) -> int:
    """How many runs a shelf has."""
    query = f"SELECT COUNT(*) FROM runs r WHERE {SHELVES[shelf]}"
    (number,) = connection.execute(query).fetchone()
    return int(number)
