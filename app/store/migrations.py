"""The schema, as numbered steps. A step that was released never changes: what is new goes into the next one."""

import sqlite3
from collections.abc import Callable

from trainvitals.app.store import views
from trainvitals.app.store.repack import pack_histograms, repack, sum_up_anew
from trainvitals.app.store.types import StoreError

MIGRATIONS: tuple[str | Callable[[sqlite3.Connection], None], ...] = (
    """
    -- One training.
    CREATE TABLE runs (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        project TEXT NOT NULL,
        name TEXT NOT NULL,
        config BLOB NOT NULL,         -- msgpack, like all values of no fixed form
        tags BLOB NOT NULL,
        environment BLOB NOT NULL,
        world_size INTEGER NOT NULL,
        created REAL NOT NULL,        -- Unix seconds, like all times
        last_seen REAL NOT NULL,
        version INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX runs_by_age ON runs (created);

    -- One process of a run.
    CREATE TABLE streams (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
        attempt TEXT NOT NULL,
        rank INTEGER NOT NULL,
        next INTEGER NOT NULL DEFAULT 0,     -- seq of the next record to store
        read INTEGER NOT NULL DEFAULT 0,     -- seq of the next record to evaluate
        loose INTEGER NOT NULL DEFAULT 0,    -- records in rows of the log that are small yet
        first_step INTEGER,                  -- lowest and highest step with a step record
        last_step INTEGER,
        end_status TEXT NOT NULL DEFAULT '',
        end_message TEXT NOT NULL DEFAULT '',
        UNIQUE (run, attempt, rank)
    );
    CREATE INDEX streams_unread ON streams (run) WHERE next > read;

    -- Records without histograms, for replay. A sample of rank 0 holds the number of its row in the group.
    CREATE TABLE log (
        stream INTEGER NOT NULL REFERENCES streams (key) ON DELETE CASCADE,
        last INTEGER NOT NULL,               -- seq of the last record in it
        count INTEGER NOT NULL,
        body BLOB NOT NULL,                  -- zstd of the msgpack of a list of records
        PRIMARY KEY (stream, last)
    );

    CREATE TABLE events (
        stream INTEGER NOT NULL REFERENCES streams (key) ON DELETE CASCADE,
        seq INTEGER NOT NULL,
        step INTEGER NOT NULL,
        body BLOB NOT NULL,                  -- msgpack of the record
        PRIMARY KEY (stream, seq)
    );

    -- A matrix that grows by one record a step, under one layout. A layout with other rows begins a new one.
    -- Number -1 holds the scalars of a stream: one row, a column for each name.
    CREATE TABLE groups (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        stream INTEGER NOT NULL REFERENCES streams (key) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,                  -- activation, parameter or scalar
        layout BLOB,                         -- msgpack of the record
        rows INTEGER NOT NULL,
        columns INTEGER NOT NULL,
        block INTEGER NOT NULL,              -- records in one compacted block
        count INTEGER NOT NULL DEFAULT 0,    -- records in all
        compacted INTEGER NOT NULL DEFAULT 0 -- records in blocks; the rest is in the tail
    );
    CREATE INDEX groups_by_stream ON groups (stream, number);

    -- Columns of scalar groups.
    CREATE TABLE names (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
        name TEXT NOT NULL,
        UNIQUE (run, name)
    );

    -- Records as received, until there are enough for a block.
    CREATE TABLE tail (
        grp INTEGER NOT NULL REFERENCES groups (key) ON DELETE CASCADE,
        first INTEGER NOT NULL,              -- number of the first record in the group
        count INTEGER NOT NULL,
        steps BLOB NOT NULL,                 -- int64
        body BLOB NOT NULL,                  -- float32 (count, rows, columns); scalars: see tiles.pack_scalars
        PRIMARY KEY (grp, first)
    );

    -- Level 0: compacted records. Level n: nodes of 4 * 4^n records each, as many in a block as level 1 has.
    CREATE TABLE blocks (
        grp INTEGER NOT NULL REFERENCES groups (key) ON DELETE CASCADE,
        level INTEGER NOT NULL,
        block INTEGER NOT NULL,
        low INTEGER NOT NULL,                -- lowest and highest step
        high INTEGER NOT NULL,
        steps BLOB NOT NULL,                 -- of the records, of the first record of each node; see tiles.pack_steps
        PRIMARY KEY (grp, level, block)
    ) WITHOUT ROWID;

    CREATE TABLE tiles (
        grp INTEGER NOT NULL REFERENCES groups (key) ON DELETE CASCADE,
        level INTEGER NOT NULL,
        col INTEGER NOT NULL,
        tile INTEGER NOT NULL,               -- rows TILE_ROWS * tile and up, NODE_ROWS * tile above level 0
        block INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (grp, level, col, tile, block)
    );

    CREATE TABLE histograms (
        grp INTEGER NOT NULL REFERENCES groups (key) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        step INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        body BLOB NOT NULL,                  -- see bars.pack
        PRIMARY KEY (grp, kind, step, seq)
    );

    -- How far the rules have read a run, and who is at it.
    CREATE TABLE evaluations (
        run INTEGER PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE,
        cursor BLOB,
        state BLOB,
        owner TEXT NOT NULL DEFAULT '',
        leased_until REAL NOT NULL DEFAULT 0
    );

    CREATE TABLE findings (
        run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        severity TEXT NOT NULL,
        open INTEGER NOT NULL,               -- 1 for a root that is firing
        body BLOB NOT NULL,                  -- msgpack
        PRIMARY KEY (run, position)
    );

    -- The outbox: messages, and what became of them on each channel.
    CREATE TABLE alerts (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
        grp TEXT NOT NULL,
        kind TEXT NOT NULL,
        created REAL NOT NULL,
        not_before REAL NOT NULL,
        cancelled INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX alerts_by_group ON alerts (run, grp);
    CREATE TABLE deliveries (
        alert INTEGER NOT NULL REFERENCES alerts (key) ON DELETE CASCADE,
        channel TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        error TEXT NOT NULL,
        updated REAL NOT NULL,
        retry_at REAL,
        PRIMARY KEY (alert, channel)
    );
    """,
    """
    -- Nothing to change: from here on the log may hold `scalars` records and histograms may hold varints, which
    -- an earlier release cannot read.
    """,
    """
    -- Tiles and nodes in fewer bytes (`floats`), nodes in blocks of their own size (`pyramid`).
    -- Nodes of level 1 that wait for a block.
    CREATE TABLE fresh (
        grp INTEGER NOT NULL REFERENCES groups (key) ON DELETE CASCADE,
        col INTEGER NOT NULL,
        block INTEGER NOT NULL,              -- of the records they sum up
        body BLOB NOT NULL,                  -- see tiles.pack_plain
        PRIMARY KEY (grp, col, block)
    );
    """,
    repack,
    """
    -- When each process was last heard of: a rank that hangs is silent while the others go on.
    ALTER TABLE streams ADD COLUMN last_seen REAL NOT NULL DEFAULT 0;

    -- Ids of runs that were deleted for good: their processes may still be sending.
    CREATE TABLE gone (
        id TEXT PRIMARY KEY,
        time REAL NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    -- Unix seconds. A deleted run is hidden, may be restored, and is purged some time later: then its id gives way
    -- to 'purged <key>', so that nobody finds it while its rows go bit by bit. An archived run is put away and kept.
    ALTER TABLE runs ADD COLUMN deleted REAL;
    ALTER TABLE runs ADD COLUMN archived REAL;
    CREATE INDEX runs_deleted ON runs (deleted) WHERE deleted IS NOT NULL;

    -- When each part of the server was last at work, and what it has to say.
    CREATE TABLE signs (
        name TEXT PRIMARY KEY,               -- evaluator, retention
        time REAL NOT NULL,
        body BLOB NOT NULL                   -- msgpack of a map
    );
    """,
    """
    -- What people said of a finding. A row stays when the finding is gone, as it may come back.
    CREATE TABLE handled (
        run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
        grp TEXT NOT NULL,                   -- key of the finding
        acknowledged REAL,                   -- when, and the onset of what was acknowledged then
        first_step INTEGER,
        muted_until REAL,
        PRIMARY KEY (run, grp)
    ) WITHOUT ROWID;

    -- Times in which nothing was heard of a run (rank -1) or of one rank of it.
    CREATE TABLE silences (
        run INTEGER NOT NULL REFERENCES runs (key) ON DELETE CASCADE,
        rank INTEGER NOT NULL,
        since REAL NOT NULL,
        step INTEGER NOT NULL,               -- the last one before
        heard REAL,                          -- when it was over
        PRIMARY KEY (run, rank, since)
    ) WITHOUT ROWID;

    -- Until when nothing more is sent on a channel.
    CREATE TABLE holds (
        channel TEXT PRIMARY KEY,
        held_until REAL NOT NULL
    ) WITHOUT ROWID;

    -- What the list of runs shows of each run, as it was made for a version of it. Made anew when it is missing.
    CREATE TABLE cards (
        run INTEGER PRIMARY KEY REFERENCES runs (key) ON DELETE CASCADE,
        version INTEGER NOT NULL,
        updated REAL NOT NULL,
        body BLOB NOT NULL                   -- JSON
    );
    CREATE INDEX alerts_by_age ON alerts (not_before);
    """,
    sum_up_anew,
    pack_histograms,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, inside the caller's write transaction.

    Raises StoreError for a database of a later release.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"The database has schema version {version}; this release knows {len(MIGRATIONS)}. "
            "Bring trainvitals to the release that wrote it."
        )
    if version == len(MIGRATIONS):
        return
    views.drop(connection)
    for number, step in enumerate(MIGRATIONS[version:], version + 1):
        if callable(step):
            step(connection)
        else:
            for statement in _statements(step):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
    views.create(connection)


def _statements(script: str) -> list[str]:
    """`executescript` would commit first, so statements go one by one."""
    found, held = [], ""
    for line in script.splitlines():
        held += line + "\n"
        if sqlite3.complete_statement(held):
            found.append(held)
            held = ""
    return found
