"""What people said of findings: acknowledged, muted until."""

import sqlite3

from trainvitals.app.store import catalog
from trainvitals.app.store.types import Handling


def handling(connection: sqlite3.Connection, run_id: str) -> dict[str, Handling]:
    """What was said of the findings of a run, by their keys."""
    rows = connection.execute(
        "SELECT h.grp, h.acknowledged, h.first_step, h.muted_until FROM handled h "
        "JOIN runs r ON r.key = h.run WHERE r.id = ?",
        (run_id,),
    )
    return {
        row[0]: Handling(acknowledged=row[1], first_step=row[2], muted_until=row[3]) for row in rows
    }


def acknowledge(
    connection: sqlite3.Connection, run_id: str, group: str, first_step: int, when: float | None
) -> None:
    """Note that someone has seen a finding, None for nobody. Raises NotFound."""
    run = catalog.run_key(connection, run_id)
    connection.execute(
        "INSERT INTO handled (run, grp, acknowledged, first_step) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (run, grp) DO UPDATE SET acknowledged = excluded.acknowledged, "
        "first_step = excluded.first_step",
        (run, group, when, first_step),
    )
    _changed(connection, run)


def mute(connection: sqlite3.Connection, run_id: str, group: str, until: float | None) -> None:
    """Send nothing about a finding before `until`, None to send again. Raises NotFound."""
    run = catalog.run_key(connection, run_id)
    connection.execute(
        "INSERT INTO handled (run, grp, muted_until) VALUES (?, ?, ?) "
        "ON CONFLICT (run, grp) DO UPDATE SET muted_until = excluded.muted_until",
        (run, group, until),
    )
    _changed(connection, run)


def _changed(connection: sqlite3.Connection, run: int) -> None:
    """Let the pages that show the run show it anew."""
    connection.execute("UPDATE runs SET version = version + 1 WHERE key = ?", (run,))
