"""How much there is of everything, in a few quick queries."""

import sqlite3

from trainvitals.app.store.status import LOST_S
from trainvitals.app.store.types import Census

_RUNS = """
    SELECT CASE WHEN ended != '' THEN ended WHEN ABS(?1 - last_seen) > ?2 THEN 'lost contact' ELSE 'running' END,
           COUNT(*)
    FROM (SELECT r.last_seen, COALESCE((SELECT s.end_status FROM streams s WHERE s.run = r.key AND s.rank = 0
                 ORDER BY s.attempt DESC LIMIT 1), '') AS ended
          FROM runs r WHERE r.deleted IS NULL)
    GROUP BY 1
"""
_RECORDS = """
    SELECT TOTAL(s.next), TOTAL(s.next - s.read) FROM streams s JOIN runs r ON r.key = s.run
    WHERE r.deleted IS NULL
"""
_ALERTS = """
    SELECT COUNT(*) FROM alerts a JOIN runs r ON r.key = a.run
    WHERE r.deleted IS NULL AND a.cancelled = 0
      AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.alert = a.key AND d.state != 'pending')
"""


def census(connection: sqlite3.Connection, now: float) -> Census:
    """The numbers at `now` (Unix seconds)."""
    records, unjudged = connection.execute(_RECORDS).fetchone()
    deliveries = connection.execute("SELECT state, COUNT(*) FROM deliveries GROUP BY state")
    return Census(
        runs=dict(connection.execute(_RUNS, (now, LOST_S)).fetchall()),
        records=records,
        unjudged=unjudged,
        alerts=connection.execute(_ALERTS).fetchone()[0],
        deliveries=dict(deliveries.fetchall()),
    )
