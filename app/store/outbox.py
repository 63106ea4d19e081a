"""Alerts that wait to be sent, and what became of them on each channel."""

import sqlite3
from collections.abc import Sequence

from trainvitals.app.store import catalog
from trainvitals.app.store.types import AlertRow, Delivery, DeliveryState


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


def pending(connection: sqlite3.Connection, channel: str, now: float, limit: int) -> list[AlertRow]:
    """What is due on a channel; see `Store.pending`."""
    rows = connection.execute(
        """
        SELECT a.id, r.id, a.grp, a.kind, a.created, a.not_before
        FROM alerts a JOIN runs r ON r.key = a.run
        LEFT JOIN deliveries d ON d.alert = a.key AND d.channel = ?1
        WHERE a.cancelled = 0 AND r.deleted IS NULL AND a.not_before <= ?2
          AND (d.alert IS NULL OR (d.state = 'pending' AND d.retry_at <= ?2))
          AND NOT EXISTS (
            SELECT 1 FROM alerts b LEFT JOIN deliveries e ON e.alert = b.key AND e.channel = ?1
            WHERE b.run = a.run AND b.grp = a.grp AND b.key < a.key AND b.cancelled = 0
              AND (e.alert IS NULL OR e.state = 'pending')
          )
        ORDER BY a.not_before, a.key LIMIT ?3
        """,
        (channel, now, limit),
    )
    return [
        AlertRow(
            id=row[0], run=row[1], group=row[2], kind=row[3], created=row[4], not_before=row[5]
        )
        for row in rows
    ]


def mark(
    connection: sqlite3.Connection,
    alert_id: str,
    channel: str,
    now: float,
    state: DeliveryState,
    *,
    error: str = "",
    retry_at: float | None = None,
) -> None:
    """Note what became of an alert on a channel. An alert whose run was deleted meanwhile is left alone."""
    connection.execute(
        "INSERT INTO deliveries (alert, channel, state, attempts, error, updated, retry_at) "
        "SELECT key, ?, ?, 1, ?, ?, ? FROM alerts WHERE id = ? "
        "ON CONFLICT (alert, channel) DO UPDATE SET state = excluded.state, "
        "attempts = attempts + excluded.attempts, error = excluded.error, "
        "updated = excluded.updated, retry_at = excluded.retry_at",
        (channel, state, error, now, retry_at, alert_id),
    )


def cancel(connection: sqlite3.Connection, alert_id: str, channel: str | None) -> None:
    """Send an alert on that channel, or on none at all, no more."""
    if channel is None:
        connection.execute("UPDATE alerts SET cancelled = 1 WHERE id = ?", (alert_id,))
        return
    connection.execute(
        "INSERT INTO deliveries (alert, channel, state, attempts, error, updated, retry_at) "
        "SELECT key, ?, 'cancelled', 0, '', created, NULL FROM alerts WHERE id = ? "
        "ON CONFLICT (alert, channel) DO UPDATE SET state = 'cancelled', retry_at = NULL",
        (channel, alert_id),
    )


def deliveries(connection: sqlite3.Connection, run_id: str | None, limit: int) -> list[Delivery]:
    """The delivery log, newest first; of one run where it is given."""
    rows = connection.execute(
        """
        SELECT a.id, r.id, a.grp, a.kind, a.created, d.channel, d.state, d.attempts, d.error,
               d.updated, d.retry_at
        FROM deliveries d JOIN alerts a ON a.key = d.alert JOIN runs r ON r.key = a.run
        WHERE r.deleted IS NULL AND (?1 IS NULL OR r.id = ?1)
        ORDER BY d.updated DESC, a.key DESC LIMIT ?2
        """,
        (run_id, limit),
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
