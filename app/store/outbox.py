"""Alerts that wait to be sent, and what became of them on each channel."""

import sqlite3
from collections.abc import Sequence

from trainvitals.app.store import catalog
from trainvitals.app.store.connection import Database
from trainvitals.app.store.types import AlertRow, Delivery, DeliveryState, Taken

STALE_S = 24 * 3600.0
"""An alert that has waited for longer was never meant for a channel that was set up just now, seconds."""

_ALERT = "a.id, r.id, a.grp, a.kind, a.created, a.not_before"
# Of each group the first message that is not done with; ?1 channel, ?2 now, ?3 the time before which all is stale.
_DUE = f"""
    SELECT {_ALERT}, a.key, MAX(a.not_before, COALESCE(h.muted_until, 0)) AS due,
           COALESCE(d.attempts, 0), d.state
    FROM alerts a JOIN runs r ON r.key = a.run
    LEFT JOIN deliveries d ON d.alert = a.key AND d.channel = ?1
    LEFT JOIN handled h ON h.run = a.run AND h.grp = a.grp
    WHERE a.cancelled = 0 AND r.deleted IS NULL AND a.not_before <= ?2 AND COALESCE(h.muted_until, 0) <= ?2
      AND (
        (d.alert IS NULL AND (a.not_before > ?3 OR h.muted_until > ?3))
        OR (d.state IN ('pending', 'sending') AND d.retry_at <= ?2)
      )
      AND NOT EXISTS (
        SELECT 1 FROM alerts b LEFT JOIN deliveries e ON e.alert = b.key AND e.channel = ?1
        WHERE b.run = a.run AND b.grp = a.grp AND b.key < a.key AND b.cancelled = 0
          AND (e.state IN ('pending', 'sending') OR (e.alert IS NULL AND b.not_before > ?3))
      )
      AND NOT EXISTS (SELECT 1 FROM holds o WHERE o.channel = ?1 AND o.held_until > ?2)
    ORDER BY due, a.key LIMIT 1
"""


def add(connection: sqlite3.Connection, alerts: Sequence[AlertRow]) -> None:
    """Put alerts in the outbox, but for those whose id is known. Raises NotFound."""
    for alert in alerts:
        connection.execute(
            "INSERT INTO alerts (id, run, grp, kind, created, not_before) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (
                alert.id,
                catalog.run_key(connection, alert.run),
                alert.group,
                alert.kind,
                alert.created,
                alert.not_before,
            ),
        )


def take(
    database: Database, channel: str, now: float, lease_s: float, pace_s: float
) -> Taken | None:
    """Take the next alert that is due on a channel; see `Store.take_alert`."""
    wanted = (channel, now, now - STALE_S)
    with database.read() as connection:
        if connection.execute(_DUE, wanted).fetchone() is None:
            return None  # the common case takes no lock
    with database.write() as connection:
        row = connection.execute(_DUE, wanted).fetchone()
        if row is None:
            return None
        connection.execute(
            "INSERT INTO deliveries (alert, channel, state, attempts, error, updated, retry_at) "
            "VALUES (?, ?, 'sending', 1, '', ?, ?) ON CONFLICT (alert, channel) DO UPDATE SET "
            "state = 'sending', attempts = attempts + 1, updated = excluded.updated, "
            "retry_at = excluded.retry_at",
            (row[6], channel, now, now + lease_s),
        )
        _hold(connection, channel, now + pace_s)
        return Taken(
            row=_alert(row), due=row[7], attempts=row[8] + 1, uncertain=row[9] == "sending"
        )


def mark(
    connection: sqlite3.Connection,
    alert_id: str,
    channel: str,
    now: float,
    state: DeliveryState,
    *,
    error: str = "",
    retry_at: float | None = None,
    hold_until: float = 0.0,
) -> None:
    """Note what became of an alert that was taken. One whose run was deleted meanwhile is left alone."""
    connection.execute(
        "UPDATE deliveries SET state = ?, error = ?, updated = ?, retry_at = ? "
        "WHERE channel = ? AND alert = (SELECT key FROM alerts WHERE id = ?)",
        (state, error, now, retry_at, channel, alert_id),
    )
    _hold(connection, channel, hold_until)


def cancel(connection: sqlite3.Connection, alert_id: str, channel: str | None) -> None:
    """Send an alert on that channel, or on none at all, no more."""
    if channel is None:
        connection.execute("UPDATE alerts SET cancelled = 1 WHERE id = ?", (alert_id,))
    connection.execute(
        "UPDATE deliveries SET state = 'cancelled', attempts = attempts - 1, retry_at = NULL "
        "WHERE alert = (SELECT key FROM alerts WHERE id = ?1) AND state = 'sending' "
        "AND (?2 IS NULL OR channel = ?2)",
        (alert_id, channel),
    )


def standing(connection: sqlite3.Connection, before: float, heard_since: float) -> list[AlertRow]:
    """Openings of before `before` that nothing has closed, of runs that were heard of since `heard_since`."""
    rows = connection.execute(
        f"""
        SELECT {_ALERT} FROM alerts a JOIN runs r ON r.key = a.run
        WHERE a.kind = 'open' AND a.cancelled = 0 AND r.deleted IS NULL AND a.created <= ? AND r.last_seen >= ?
          AND NOT EXISTS (
            SELECT 1 FROM alerts b WHERE b.run = a.run AND b.grp = a.grp AND b.key > a.key
              AND b.kind IN ('open', 'resolved')
          )
        """,
        (before, heard_since),
    )
    return [_alert(row) for row in rows]


def deliveries(
    connection: sqlite3.Connection, run_id: str | None, limit: int, alert_id: str | None = None
) -> list[Delivery]:
    """The delivery log, newest first; of one run or of one alert where it is given."""
    rows = connection.execute(
        """
        SELECT a.id, r.id, a.grp, a.kind, a.created, d.channel, d.state, d.attempts, d.error,
               d.updated, d.retry_at
        FROM deliveries d JOIN alerts a ON a.key = d.alert JOIN runs r ON r.key = a.run
        WHERE r.deleted IS NULL AND (?1 IS NULL OR r.id = ?1) AND (?3 IS NULL OR a.id = ?3)
        ORDER BY d.updated DESC, a.key DESC LIMIT ?2
        """,
        (run_id, limit, alert_id),
    )
    return [
        Delivery(
            id=row[0],
            run=row[1],
            group=row[2],
            kind=row[3],
            created=row[4],
            channel=row[5],
            state=row[6],
            attempts=row[7],
            error=row[8],
            updated=row[9],
            retry_at=row[10],
        )
        for row in rows
    ]


def _hold(connection: sqlite3.Connection, channel: str, until: float) -> None:
    connection.execute(
        "INSERT INTO holds (channel, held_until) VALUES (?, ?) ON CONFLICT (channel) "
        "DO UPDATE SET held_until = MAX(held_until, excluded.held_until)",
        (channel, until),
    )


def _alert(row: tuple) -> AlertRow:  # type: ignore[type-arg]
    return AlertRow(
        id=row[0], run=row[1], group=row[2], kind=row[3], created=row[4], not_before=row[5]
    )
