"""Views for people who read the database with SQL: the packed arrays as rows. `sql` has the functions they call.

They belong to the release, not to the schema: each migration begins without them and ends with new ones. Whoever
changes a view adds a migration, which may be empty.
"""

import sqlite3
from typing import Final

from trainvitals.app.store.groups import SCALARS
from trainvitals.app.store.tiles import TILE_ROWS

_SUPERSEDED: Final = (
    "EXISTS (SELECT 1 FROM streams later WHERE later.run = s.run AND later.rank = 0 "
    "AND later.attempt > s.attempt AND later.first_step <= CAST(v.key AS INTEGER))"
)
"""Whether a later attempt recorded the step anew, so that charts leave this one out."""

_OF_GROUPS: Final = "runs r JOIN streams s ON s.run = r.key JOIN groups g ON g.stream = s.key"
_BLOCKS: Final = "JOIN blocks b ON b.grp = t.grp AND b.level = 0 AND b.block = t.block"
_POINT: Final = f"CAST(v.key AS INTEGER) AS step, v.value AS value, {_SUPERSEDED} AS superseded"

_SCALAR: Final = f"SELECT r.id AS run, s.attempt, n.name, {_POINT}"
_STATISTIC: Final = (
    "SELECT r.id AS run, s.attempt, g.kind, line.value AS name, field.value AS statistic, " + _POINT
)
# CROSS JOIN keeps the order of the loops: names first, so that the tiles of others are not read.
_CELLS: Final = (
    "CROSS JOIN json_each(tv_rows(g.layout)) line CROSS JOIN json_each(tv_columns(g.layout)) field"
)

VIEWS: Final = {
    "run_list": """
        SELECT r.id AS run, r.project, r.name, tv_json(r.config) AS config, tv_json(r.tags) AS tags,
               tv_json(r.environment) AS environment, r.world_size,
               datetime(r.created, 'unixepoch') AS created,
               datetime(r.last_seen, 'unixepoch') AS last_seen,
               (SELECT MAX(s.last_step) FROM streams s WHERE s.run = r.key) AS last_step,
               COALESCE((SELECT s.end_status FROM streams s WHERE s.run = r.key AND s.rank = 0
                         ORDER BY s.attempt DESC LIMIT 1), '') AS ended,
               r.archived IS NOT NULL AS archived, r.deleted IS NOT NULL AS deleted
        FROM runs r
    """,
    "scalar_values": f"""
        {_SCALAR} FROM {_OF_GROUPS} AND g.number = {SCALARS} JOIN names n ON n.run = r.key
        CROSS JOIN tiles t ON t.grp = g.key AND t.level = 0 AND t.col = n.key AND t.tile = 0
        {_BLOCKS}
        JOIN json_each(tv_tile(t.body, b.steps, 'scalar', 1, 0)) v
        UNION ALL
        {_SCALAR} FROM {_OF_GROUPS} AND g.number = {SCALARS} JOIN names n ON n.run = r.key
        JOIN tail t ON t.grp = g.key JOIN json_each(tv_tail_scalars(t.body, t.steps, n.key)) v
    """,
    "statistic_values": f"""
        {_STATISTIC} FROM {_OF_GROUPS} AND g.number >= 0 {_CELLS}
        CROSS JOIN tiles t ON t.grp = g.key AND t.level = 0 AND t.col = field.key
             AND t.tile = line.key / {TILE_ROWS}
        {_BLOCKS}
        JOIN json_each(tv_tile(t.body, b.steps, g.kind, g.rows - {TILE_ROWS} * t.tile,
                               line.key % {TILE_ROWS})) v
        UNION ALL
        {_STATISTIC} FROM {_OF_GROUPS} AND g.number >= 0 {_CELLS} CROSS JOIN tail t ON t.grp = g.key
        JOIN json_each(tv_tail(t.body, t.steps, g.rows, g.columns, line.key, field.key)) v
    """,
    "histogram_values": """
        SELECT r.id AS run, s.attempt, h.kind, line.value AS name, h.step,
               tv_edge(bar.key) AS low, tv_edge(bar.key + 1) AS high, bar.value AS count
        FROM runs r JOIN streams s ON s.run = r.key JOIN groups g ON g.stream = s.key
        JOIN json_each(tv_rows(g.layout)) line JOIN histograms h ON h.grp = g.key
        JOIN json_each(tv_counts(h.body, g.rows, line.key)) bar
        WHERE bar.value > 0
    """,
    "event_list": """
        SELECT r.id AS run, s.attempt, s.rank, e.step, json_extract(tv_json(e.body), '$.kind') AS kind,
               json_extract(tv_json(e.body), '$.layer') AS layer,
               json_extract(tv_json(e.body), '$.message') AS message,
               json_extract(tv_json(e.body), '$.data') AS data
        FROM runs r JOIN streams s ON s.run = r.key JOIN events e ON e.stream = s.key
    """,
    "finding_list": """
        SELECT r.id AS run, f.position, f.severity, f.open,
               json_extract(tv_json(f.body), '$.rule') AS rule,
               json_extract(tv_json(f.body), '$.title') AS title,
               json_extract(tv_json(f.body), '$.first_step') AS first_step,
               json_extract(tv_json(f.body), '$.last_step') AS last_step,
               json_extract(tv_json(f.body), '$.layers') AS layers,
               json_extract(tv_json(f.body), '$.remedy') AS remedy
        FROM runs r JOIN findings f ON f.run = r.key
    """,
}


def drop(connection: sqlite3.Connection) -> None:
    """Remove the views of whatever release made them, inside the caller's transaction."""
    for (name,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'view'"
    ).fetchall():
        if name in VIEWS:
            connection.execute(f"DROP VIEW {name}")


def create(connection: sqlite3.Connection) -> None:
    """Add the views of this release, inside the caller's transaction."""
    for name, query in VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {query}")
