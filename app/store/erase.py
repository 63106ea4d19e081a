"""Removing rows bit by bit, so that whoever writes meanwhile never waits long.

Everything here is a generator: each step is one transaction that holds the write lock for about `HOLD_S` seconds, and
whoever runs it pauses between two steps. It may be left at any step and begun anew: what is left to do is read from
the database.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Final

from trainvitals.app.store.catalog import PURGING
from trainvitals.app.store.connection import Database

HOLD_S: Final = 0.02
"""How long a transaction goes on taking further rows, seconds. The commit comes on top."""
_ROWS: Final = 16
"""Rows between two looks at the clock; a row may have megabytes."""
_PAGES: Final = 64
"""Pages between two looks at the clock."""

_Children = dict[str, list[tuple[str, str]]]
_Work = Callable[[sqlite3.Connection], Iterator[None]]


def purge(database: Database, key: int) -> Iterator[None]:
    """Remove a run that is deleted, and all that refers to it. From the first step on it cannot be restored.

    Its id stays known, so that processes that still send to it are told.
    """
    with database.write() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO gone (id, time) SELECT id, unixepoch() FROM runs r "
            f"WHERE key = ? AND deleted IS NOT NULL AND NOT {PURGING}",
            (key,),
        )
        hidden = connection.execute(
            "UPDATE runs SET id = 'purged ' || key WHERE key = ? AND deleted IS NOT NULL", (key,)
        ).rowcount
    if not hidden:  # it was restored meanwhile
        return
    yield
    yield from _in_steps(database, lambda connection: _cut(connection, "runs", key))


def histograms(database: Database, key: int) -> Iterator[None]:
    """Remove the histograms of a run; all else stays."""

    def work(connection: sqlite3.Connection) -> Iterator[None]:
        for (group,) in connection.execute(
            "SELECT g.key FROM groups g JOIN streams s ON s.key = g.stream WHERE s.run = ?", (key,)
        ).fetchall():
            yield from _bites(connection, "histograms", "grp", group)

    yield from _in_steps(database, work)


def shrink(database: Database) -> Iterator[None]:
    """Give free pages back to the file system. A file of an early release only does so after `Store.vacuum`."""

    def work(connection: sqlite3.Connection) -> Iterator[None]:
        while connection.execute("PRAGMA freelist_count").fetchone()[0]:
            connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
            yield

    with database.read() as connection:
        (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode:
        yield from _in_steps(database, work)
        with (
            database.bare() as connection
        ):  # the file ends earlier once its log is in it; waits for nobody
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _in_steps(database: Database, work: _Work) -> Iterator[None]:
    finished = False
    while not finished:
        with database.write() as connection:
            end = time.monotonic() + HOLD_S
            finished = all(time.monotonic() < end for _ in work(connection))
        yield


def _cut(connection: sqlite3.Connection, table: str, key: int) -> Iterator[None]:
    """Remove the row `key` of `table`, after all that refers to it.

    Only what removes something is a bite, so that a step never ends before it comes to the first row that is left.
    """
    children = _children(connection)
    for child, column in children.get(table, ()):
        if child in children:
            for (own,) in connection.execute(
                f"SELECT key FROM {child} WHERE {column} = ?", (key,)
            ).fetchall():
                yield from _cut(connection, child, own)
        else:
            yield from _bites(connection, child, column, key)
    if connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,)).rowcount:
        yield


def _bites(connection: sqlite3.Connection, table: str, column: str, key: int) -> Iterator[None]:
    found = connection.execute(f"PRAGMA table_info({table})").fetchall()
    own = ", ".join(name for _, name, _, _, _, place in found if place)
    while connection.execute(
        f"DELETE FROM {table} WHERE ({own}) IN "
        f"(SELECT {own} FROM {table} WHERE {column} = ? LIMIT {_ROWS})",
        (key,),
    ).rowcount:
        yield


def _children(connection: sqlite3.Connection) -> _Children:
    """The tables and columns that refer to each table by its key."""
    found: _Children = {}
    for (table,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table'"
    ).fetchall():
        for row in connection.execute(f"PRAGMA foreign_key_list({table})").fetchall():
            found.setdefault(row[2], []).append((table, row[3]))
    return found
