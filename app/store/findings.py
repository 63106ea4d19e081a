"""What the rules said of a run, how far they have read it, and whose turn it is."""

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from trainvitals.app.rules.finding import Finding
from trainvitals.app.store import catalog, outbox
from trainvitals.app.store.connection import Database
from trainvitals.app.store.types import AlertRow, Conflict, Evaluation

_decoder = msgspec.msgpack.Decoder(Finding)
_cursor_decoder = msgspec.msgpack.Decoder(dict[str, int])

_WAITING = """
    SELECT DISTINCT r.key, r.id FROM runs r JOIN streams s ON s.run = r.key AND s.next > s.read
    LEFT JOIN evaluations e ON e.run = r.key
    WHERE r.deleted IS NULL
      AND (e.run IS NULL OR e.owner IN ('', ?) OR e.leased_until NOT BETWEEN ? AND ?)
    ORDER BY r.key
"""


def claim(database: Database, owner: str, ttl_s: float, now: float) -> list[str]:
    """Lease the runs that wait; see `Store.claim`."""
    # A lease that ends later than it could was given before the clock was put back, and holds no longer.
    live = (owner, now, now + ttl_s)
    with database.read() as connection:
        if connection.execute(_WAITING, live).fetchone() is None:
            return []  # the common case takes no lock
    with database.write() as connection:
        waiting = connection.execute(_WAITING, live).fetchall()
        connection.executemany(
            "INSERT INTO evaluations (run, owner, leased_until) VALUES (?, ?, ?) "
            "ON CONFLICT (run) DO UPDATE SET owner = excluded.owner, "
            "leased_until = excluded.leased_until",
            [(key, owner, now + ttl_s) for key, _ in waiting],
        )
        return [run_id for _, run_id in waiting]


def release(connection: sqlite3.Connection, owner: str) -> None:
    """Hand back all leases of one who ends."""
    connection.execute(
        "UPDATE evaluations SET owner = '', leased_until = 0 WHERE owner = ?", (owner,)
    )


def evaluation(connection: sqlite3.Connection, run_id: str) -> Evaluation:
    """How far the rules have read a run."""
    row = connection.execute(
        "SELECT e.cursor, e.state FROM evaluations e JOIN runs r ON r.key = e.run WHERE r.id = ?",
        (run_id,),
    ).fetchone()
    if row is None or row[0] is None:
        return Evaluation({}, None)
    return Evaluation(_cursor_decoder.decode(row[0]), row[1])


def evaluated(connection: sqlite3.Connection) -> list[str]:
    """Runs that were evaluated, the newest last."""
    rows = connection.execute(
        "SELECT r.id FROM evaluations e JOIN runs r ON r.key = e.run "
        "WHERE r.deleted IS NULL AND e.state IS NOT NULL ORDER BY r.key"
    )
    return [run_id for (run_id,) in rows]


def judge_again(connection: sqlite3.Connection, run_id: str) -> None:
    """Have no record of a run count as read."""
    connection.execute(
        "UPDATE streams SET read = 0 WHERE run = (SELECT key FROM runs WHERE id = ?)", (run_id,)
    )


def commit(
    connection: sqlite3.Connection,
    run_id: str,
    owner: str,
    cursor: Mapping[str, int],
    state: bytes | None,
    findings: Sequence[Finding],
    alerts: Sequence[AlertRow],
) -> None:
    """Keep an evaluation and hand back the lease; see `Store.commit_evaluation`."""
    run = catalog.run_key(connection, run_id)
    kept = connection.execute(
        "UPDATE evaluations SET cursor = ?, state = ?, owner = '', leased_until = 0 "
        "WHERE run = ? AND owner = ?",
        (msgspec.msgpack.encode(dict(cursor)), state, run, owner),
    )
    if kept.rowcount == 0:
        raise Conflict(f"The lease on run {run_id} is lost: another evaluator has taken it.")
    for key, after in cursor.items():
        attempt, _, rank = key.rpartition("/")
        connection.execute(
            "UPDATE streams SET read = ? WHERE run = ? AND attempt = ? AND rank = ?",
            (after, run, attempt, int(rank)),
        )
    connection.execute("DELETE FROM findings WHERE run = ?", (run,))
    connection.executemany(
        "INSERT INTO findings (run, position, severity, open, body) VALUES (?, ?, ?, ?, ?)",
        [
            (
                run,
                position,
                finding.severity,
                int(finding.root and finding.state == "firing" and not finding.acknowledged),
                msgspec.msgpack.encode(finding),
            )
            for position, finding in enumerate(findings)
        ],
    )
    outbox.add(connection, alerts)
    connection.execute("UPDATE runs SET version = version + 1 WHERE key = ?", (run,))


def findings(connection: sqlite3.Connection, run_id: str) -> list[Finding]:
    """What was found in a run, in the order of the evaluation."""
    rows = connection.execute(
        "SELECT f.body FROM findings f JOIN runs r ON r.key = f.run WHERE r.id = ? "
        "ORDER BY f.position",
        (run_id,),
    )
    return [_decoder.decode(body) for (body,) in rows]


def counts(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """Open root findings by run and severity."""
    found: dict[str, dict[str, int]] = {}
    for run_id, severity, count in connection.execute(
        "SELECT r.id, f.severity, COUNT(*) FROM findings f JOIN runs r ON r.key = f.run "
        "WHERE f.open = 1 AND r.deleted IS NULL GROUP BY r.id, f.severity"
    ):
        found.setdefault(run_id, {})[severity] = count
    return found
