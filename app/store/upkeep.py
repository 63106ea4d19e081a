"""Looking after the database file: what is in it, whether it is sound, copies of it, and its size."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from trainvitals.app.store import audit
from trainvitals.app.store.catalog import PURGING
from trainvitals.app.store.connection import Database
from trainvitals.app.store.migrations import MIGRATIONS
from trainvitals.app.store.types import StoreError

_PAGES: Final = 1024
"""Pages copied between two calls of `progress`."""
_PROBE_S: Final = 2.0
_SHOWN: Final = 20
"""Problems of each kind that are told."""


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What a database file holds."""

    path: str
    schema: int
    """Version of its schema."""
    bytes: int
    """Size of the file."""
    log_bytes: int
    """Size of the log beside it, which is used over and over."""
    free_bytes: int
    """Room in it that nothing is in."""
    shrinks: bool
    """Whether room that becomes free is given back to the file system."""
    runs: int
    archived: int
    deleted: int
    """Runs that can still be restored."""
    purging: int
    """Runs that are being removed for good."""


def version(path: Path) -> int:
    """Version of the schema of the file, which stays as it is. Raises StoreError."""
    with closing(_read_only(path)) as connection:
        return _version(path, connection)


def check(path: Path) -> list[str]:
    """What is wrong with the file, which stays as it is; empty when it is sound. Raises StoreError."""
    with closing(_read_only(path)) as connection:
        found = _version(path, connection)
        try:
            rows = connection.execute(f"PRAGMA integrity_check({_SHOWN})").fetchall()
            problems = [text for (text,) in rows if text != "ok"]
            strays = connection.execute("PRAGMA foreign_key_check").fetchmany(_SHOWN)
        except sqlite3.DatabaseError as error:
            return [str(error)]
        problems += [f"{row[0]} row {row[1]} refers to no row of {row[2]}" for row in strays]
        if found == len(MIGRATIONS):
            problems += _audit(connection)
        else:
            problems.append(
                f"schema version {found}; this release has {len(MIGRATIONS)}: run `trainvitals db upgrade`"
            )
        return problems


def _audit(connection: sqlite3.Connection) -> list[str]:
    """What the summaries of each run say otherwise than its records."""
    connection.execute("BEGIN")
    runs = connection.execute("SELECT id FROM runs WHERE deleted IS NULL ORDER BY key").fetchall()
    return [f"run {run}: {line}" for (run,) in runs for line in audit.audit(connection, run)]


def info(database: Database, connection: sqlite3.Connection) -> Info:
    """What the file holds."""
    (size,), (pages,), (free,), (mode,), (schema,) = (
        connection.execute(f"PRAGMA {name}").fetchone()
        for name in ("page_size", "page_count", "freelist_count", "auto_vacuum", "user_version")
    )
    runs, archived, deleted, purging = connection.execute(
        "SELECT COUNT(*), COUNT(r.archived), COUNT(r.deleted), COUNT(*) FILTER (WHERE "
        f"{PURGING}) FROM runs r"
    ).fetchone()
    log = database.path.with_name(database.path.name + "-wal")
    return Info(
        path=str(database.path),
        schema=schema,
        bytes=size * pages,
        log_bytes=log.stat().st_size if log.exists() else 0,
        free_bytes=size * free,
        shrinks=bool(mode),
        runs=runs - purging,
        archived=archived,
        deleted=deleted - purging,
        purging=purging,
    )


def backup(path: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Copy the database `path` as it is now to the new file `target`, while others go on writing.

    `progress` gets the pages that are done and all of them. Raises StoreError, also when `target` exists.
    """
    if target.exists():
        raise StoreError(f"{target} exists already; name a new file.")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        # A transaction that has begun to read stays at one state; a copy without it starts anew at every change.
        with closing(_read_only(path)) as source, closing(sqlite3.connect(part)) as copy:
            source.execute("BEGIN")
            _version(path, source)
            source.backup(
                copy,
                pages=_PAGES,
                progress=lambda _, left, total: progress(total - left, total),
                sleep=0,
            )
            copy.execute("PRAGMA journal_mode = DELETE")
            (sound,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise StoreError(f"The copy is not sound: {sound}. Check the database.")
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.rename(target)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}.") from error
    except sqlite3.Error as error:
        raise StoreError(f"{target} cannot be written: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def probe(path: Path) -> None:
    """Raise StoreError unless a writer gets the file within `_PROBE_S` seconds."""
    try:
        with closing(sqlite3.connect(path, timeout=_PROBE_S, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be written: {error}.") from error


def vacuum(database: Database) -> None:
    """Write the file anew without free room. Whoever wants to write has to wait. Raises StoreError."""
    with database.bare() as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # for a file of an early release
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _read_only(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be opened: {error}.") from error


def _version(path: Path, connection: sqlite3.Connection) -> int:
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error
    if not found or tables is None:
        raise StoreError(f"{path} is no database of trainvitals.")
    return int(found)
