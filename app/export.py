"""Rows as CSV, JSON lines or Parquet, piece by piece."""

import csv
import io
import math
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, get_args

import msgspec

from trainvitals.app.store.export import Row, Table, Type

Format = Literal["csv", "jsonl", "parquet"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

MEDIA_TYPES: Final[dict[Format, str]] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}

GROUP_ROWS: Final = 50_000
"""Rows in a row group of a Parquet file, at least: they are in memory together."""


class ExportError(Exception):
    """What a format needs is missing. The message says what to do."""


def encode(table: Table, form: Format) -> Iterator[bytes]:
    """The file, in pieces. Raises ExportError at once, StoreError on the way."""
    return _ENCODERS[form](table)


def _csv(table: Table) -> Iterator[bytes]:
    """With a head; what was not recorded is empty, other values are nan, inf and -inf, lists are JSON."""
    yield _lines([tuple(table.columns)])
    lists = [place for place, kind in enumerate(table.columns.values()) if kind == "json"]
    for rows in table.parts:
        yield _lines([_with_json(row, lists) for row in rows] if lists else rows)


def _lines(rows: list[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _with_json(row: Row, places: list[int]) -> Row:
    changed = list(row)
    for place in places:
        changed[place] = msgspec.json.encode(changed[place]).decode()
    return tuple(changed)


def _jsonl(table: Table) -> Iterator[bytes]:
    """An object a row; what was not recorded is null, numbers that are not finite are words."""
    names = list(table.columns)
    encode = msgspec.json.Encoder().encode
    for rows in table.parts:
        lines = [encode(dict(zip(names, map(_word, row), strict=True))) for row in rows]
        yield b"".join(line + b"\n" for line in lines)


def _word(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _parquet(table: Table) -> Iterator[bytes]:
    """What was not recorded is null, apart from NaN; lists are JSON text."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ExportError(
            "Parquet needs pyarrow. Install it with `pip install trainvitals[parquet]`."
        ) from error
    types: dict[Type, Any] = {
        "text": pyarrow.string(),
        "json": pyarrow.string(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "bool": pyarrow.bool_(),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in table.columns.items()])
    lists = [place for place, kind in enumerate(table.columns.values()) if kind == "json"]

    def pieces() -> Iterator[bytes]:
        sink = _Sink()
        with parquet.ParquetWriter(pyarrow.PythonFile(sink, mode="w"), schema) as writer:
            for rows in _gathered(table.parts):
                columns = zip(*(_with_json(row, lists) for row in rows), strict=True)
                arrays = [
                    pyarrow.array(column, kind.type)
                    for column, kind in zip(columns, schema, strict=True)
                ]
                writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
                yield sink.take()
        yield sink.take()

    return pieces()


def _gathered(parts: Iterator[list[Row]]) -> Iterator[list[Row]]:
    held: list[Row] = []
    for rows in parts:
        held += rows
        if len(held) >= GROUP_ROWS:
            yield held
            held = []
    if held:
        yield held


class _Sink(io.RawIOBase):
    """A file that is written and handed on."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Keep `data` until it is taken."""
        self._held += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._held)
        self._held.clear()
        return taken


_ENCODERS: Final[dict[Format, Callable[[Table], Iterator[bytes]]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
