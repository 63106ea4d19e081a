"""Connections: one for each thread of each process, and transactions on them."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainvitals.app.store.migrations import migrate
from trainvitals.app.store.types import StoreError

logger = logging.getLogger(__name__)

BUSY_S = 4.0
"""How long a writer waits for another one, seconds: less than a client waits for the answer that says so."""
PAGE_BYTES = 4096
"""Of a new database. Beside tiles of about 12 KiB, 3 % of the file stay empty with this size, 9 % with 8192, and over a
quarter with 16384, into which tiles are written a sixth faster."""
LOG_BYTES = 64 << 20
"""Size of the write-ahead log from which on a writer brings it into the file as a whole.

SQLite does so by itself only while nobody else writes or reads, which several busy workers never let happen.
"""
_LOG_WAIT_MS = 250
"""How long that waits for readers of the log; if they take longer, the log grows by its size again first."""


class Database:
    """The database file. May be used by any thread; survives a fork, as the child opens connections of its own."""

    def __init__(self, path: Path | str) -> None:
        """Open or create the database at `path`. Raises StoreError."""
        self.path = Path(path)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._opened: list[tuple[int, sqlite3.Connection]] = []
        self._closed = False
        self._log = Path(f"{self.path}-wal")
        self._log_limit = LOG_BYTES
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.write() as connection:
                migrate(connection)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be created: {error}.") from error
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections of this process. Nothing can be read or written from then on."""
        self._closed = True
        with self._lock:
            opened, self._opened = self._opened, []
        for pid, connection in opened:
            if pid == os.getpid():
                connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the database. Raises StoreError."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes; undone when the block raises. Raises StoreError.

        It takes the write lock at its start: one that takes it later may find that it cannot, however long it waits.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection
        try:
            long = self._log.stat().st_size > self._log_limit
        except OSError:  # somebody has taken the file away: not what this transaction is about
            return
        if long:
            self._empty_log(connection)

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {_LOG_WAIT_MS}")
        try:
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:  # what was written is committed: only the log stays long
            logger.warning("The write-ahead log of %s can't be emptied: %s", self.path, error)
            busy = 1
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(1000 * BUSY_S)}")
        self._log_limit = self._log_limit + LOG_BYTES if busy else LOG_BYTES

    @contextmanager
    def bare(self) -> Iterator[sqlite3.Connection]:
        """The connection outside of any transaction, for what cannot be in one. Raises StoreError."""
        try:
            yield self._connection()
        except sqlite3.Error as error:
            raise StoreError(f"{error}") from error

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection()
            connection.execute(begin)
            try:
                yield connection
            except (
                BaseException
            ):  # whatever it is, also an interrupt: it goes on, what was begun is undone
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"{error}") from error

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"{self.path} was closed.")
        if getattr(self._local, "pid", None) != os.getpid():
            connection = _connect(self.path)
            with self._lock:
                self._opened.append((os.getpid(), connection))
            self._local.connection, self._local.pid = connection, os.getpid()
        held: sqlite3.Connection = self._local.connection
        return held


def _connect(path: Path) -> sqlite3.Connection:
    # close() may come from another thread than the one that opened it
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        _lay_out_file(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA secure_delete = FAST")
    except BaseException:  # whatever it is goes on, and nobody else would close the connection
        connection.close()
        raise
    return connection


def _lay_out_file(connection: sqlite3.Connection) -> None:
    """Choose how the file is kept: in a new one, pages can be given back bit by bit; all have a write-ahead log.

    Switching the journal does not wait for a lock by itself, so several first openers try again.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            if connection.execute("PRAGMA page_count").fetchone() == (0,):
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
