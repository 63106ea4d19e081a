"""What SQL needs to read the packed arrays: functions for any SQLite connection, and the plugin that brings them.

Datasette and sqlite-utils find `prepare_connection` by their entry points (pyproject.toml), so that the views of
`views` work there as soon as trainvitals is installed beside them; `trainvitals db sql` has the functions too. Points
come as a JSON object of step to value, which `json_each` turns into rows. SQLite knows no NaN, which is NULL;
what was not recorded is no row at all.
"""

import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from pluggy import HookimplMarker

from trainvitals.app.store import bars, tiles
from trainvitals.app.store.types import StoreError
from trainvitals.hooks.wire.bins import edges
from trainvitals.hooks.wire.records import Layout

_layout = msgspec.msgpack.Decoder(Layout)
_EDGES: Final = edges().tolist()


@HookimplMarker("datasette")
@HookimplMarker("sqlite_utils")
def prepare_connection(conn: sqlite3.Connection) -> None:
    """Add the functions to a connection."""
    for name, arguments, function in (
        ("tv_json", 1, _json),
        ("tv_rows", 1, _rows),
        ("tv_columns", 1, _columns),
        ("tv_tile", 5, _tile),
        ("tv_tail", 6, _tail),
        ("tv_tail_scalars", 3, _tail_scalars),
        ("tv_counts", 3, _counts),
        ("tv_edge", 1, _EDGES.__getitem__),
    ):
        conn.create_function(name, arguments, function, deterministic=True)


def query(path: Path, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the columns and the rows that a query of the file gives, which it can't change. Raises StoreError."""
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            prepare_connection(connection)
            cursor = connection.execute(text)
            return [column[0] for column in cursor.description or ()], cursor.fetchall()
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise StoreError(f"{error}.") from error


def _json(body: bytes | None) -> str | None:
    """msgpack as JSON text."""
    return None if body is None else msgspec.json.encode(msgspec.msgpack.decode(body)).decode()


def _rows(layout: bytes) -> str:
    """Names of a group's rows, a JSON list."""
    return msgspec.json.encode([row.name for row in _layout.decode(layout).rows]).decode()


def _columns(layout: bytes) -> str:
    """Names of a group's columns, a JSON list."""
    return msgspec.json.encode(_layout.decode(layout).columns).decode()


def _tile(body: bytes, steps: bytes, kind: str, rows: int, row: int) -> str:
    """Points of one row of a tile at level 0; `rows`: how many the group has from the tile on."""
    at = tiles.unpack_steps(steps)
    dtype = "<f8" if kind == "scalar" else "<f4"
    values = tiles.unpack_values(body, dtype, min(rows, tiles.TILE_ROWS), len(at))[row]
    return _points(at, values, tiles.MISSING[dtype])


def _tail(body: bytes, steps: bytes, rows: int, columns: int, row: int, column: int) -> str:
    """Points of one cell of a piece of a tail."""
    values = np.frombuffer(body, "<f4").reshape(-1, rows, columns)[:, row, column]
    return _points(np.frombuffer(steps, "<i8"), values.copy(), tiles.MISSING["<f4"])


def _tail_scalars(body: bytes, steps: bytes, column: int) -> str:
    """Points of one scalar in a piece of a tail."""
    at = np.frombuffer(steps, "<i8")
    record, columns, values = tiles.unpack_scalars(body, len(at))
    chosen = columns == column
    return _points(at[record[chosen]], values[chosen], tiles.MISSING["<f8"])


def _counts(body: bytes, rows: int, row: int) -> str:
    """Counts of one row of a histogram record by bin, a JSON list."""
    counts = bars.unpack_row([body], rows, row)[0]
    return msgspec.json.encode(counts.tolist()).decode()


def _points(
    steps: npt.NDArray[np.int64], values: npt.NDArray[Any], missing: np.floating[Any]
) -> str:
    bits = f"<u{values.dtype.itemsize}"
    recorded = values.view(bits) != missing.view(bits)
    pairs = zip(steps[recorded].tolist(), values[recorded].tolist(), strict=True)
    return _object(pairs)


def _object(pairs: Iterable[tuple[int, float]]) -> str:
    """A JSON object. A step that was recorded twice is in it twice, which `json_each` gives as two rows."""
    return "{" + ",".join(f'"{step}":{_number(value)}' for step, value in pairs) + "}"


def _number(value: float) -> str:
    """`value` in JSON as SQLite reads it: a number too large for a float is infinity."""
    if math.isfinite(value):
        return repr(value)
    return "null" if math.isnan(value) else f"{'-' if value < 0 else ''}9e999"
