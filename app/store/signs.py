"""Signs of life: when each part of the server was last at work."""

import sqlite3
from collections.abc import Mapping

import msgspec

from trainvitals.app.store.types import Sign


def give(connection: sqlite3.Connection, name: str, now: float, body: Mapping[str, object]) -> None:
    """Note that `name` was at work at `now` (Unix seconds), in place of its earlier sign."""
    connection.execute(
        "INSERT INTO signs (name, time, body) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET time = excluded.time, body = excluded.body",
        (name, now, msgspec.msgpack.encode(dict(body))),
    )


def read(connection: sqlite3.Connection) -> dict[str, Sign]:
    """The last sign of each part that ever gave one."""
    rows = connection.execute("SELECT name, time, body FROM signs")
    return {name: Sign(time, msgspec.msgpack.decode(body)) for name, time, body in rows}
