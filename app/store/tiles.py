"""What the tables hold as bytes: tiles of records and of nodes, steps, rows of scalars."""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import floats
from trainvitals.app.store.compression import compress, decompress
from trainvitals.app.store.pyramid import Nodes, uniform, width
from trainvitals.hooks.wire.columns import MISSING_BITS

TILE_ROWS: Final = 16
"""Rows in a tile: few, as a page of one layer reads one row of all columns. With half as many SQLite leaves twice as
much of its pages empty."""
MISSING_BITS_64: Final = 0x7FF8_0000_0000_DEAD
"""float64 bit pattern for "not recorded at this step", apart from a real NaN."""

MISSING: Final[dict[str, np.floating[Any]]] = {
    "<f4": np.array([MISSING_BITS], "<u4").view("<f4")[0],
    "<f8": np.array([MISSING_BITS_64], "<u8").view("<f8")[0],
}

_LENGTH: Final = struct.Struct("<I")
_STEPS_HELD: Final = 4096
"""Blocks whose steps are held in memory, 0.5 to 2 KiB each."""
_SPANS_HELD: Final = 256
"""Consecutive blocks whose steps are held together, up to some 50 KiB each: what a chart asks again and again."""


def pack_values(values: npt.NDArray[Any]) -> list[bytes]:
    """Values of shape (rows, records) as tiles of `TILE_ROWS` rows; every bit is kept."""
    return [body for part in _by_tile(values) for body in floats.pack(part)]


def _by_tile(values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """(rows, n) as (tiles, TILE_ROWS, n), and what is left of the rows as a tile of its own."""
    rows = len(values)
    whole = rows // TILE_ROWS * TILE_ROWS
    parts = []
    if whole:
        parts.append(values[:whole].reshape(-1, TILE_ROWS, values.shape[1]))
    if whole < rows:
        parts.append(values[None, whole:])
    return parts


def unpack_tiles(bodies: Sequence[bytes], dtype: str, rows: int, records: int) -> npt.NDArray[Any]:
    """The inverse of `pack_values`."""
    whole = rows // TILE_ROWS
    parts = []
    if whole:
        parts.append(floats.unpack(bodies[:whole], dtype, TILE_ROWS, records))
    if rows % TILE_ROWS:
        parts.append(floats.unpack(bodies[whole:], dtype, rows % TILE_ROWS, records))
    return np.concatenate([part.reshape(-1, records) for part in parts])


def unpack_values(body: bytes, dtype: str, rows: int, records: int) -> npt.NDArray[Any]:
    """Values of one tile, shape (rows, records)."""
    values: npt.NDArray[Any] = floats.unpack([body], dtype, rows, records)[0]
    return values


def plain(dtype: str, level: int) -> bool:
    """Whether nodes of `level` are kept as they are, to be read at once; else in fewer bytes.

    Above level 1 there are too few for their bytes to matter, and of scalars at all levels.
    """
    return level > 1 or dtype == "<f8"


def pack_nodes(nodes: Nodes, dtype: str, level: int) -> list[bytes]:
    """Nodes of `level`, shape (rows, n), as tiles of `TILE_ROWS` rows, their numbers as `dtype`."""
    if plain(dtype, level):
        lows = range(0, len(nodes.finite), TILE_ROWS)
        return [pack_plain(nodes[low : low + TILE_ROWS], dtype, level) for low in lows]
    numbers = [
        field.astype(dtype, copy=False) for field in (nodes.min, nodes.max, nodes.mean, nodes.last)
    ]
    packed = []
    parts = [_by_tile(field) for field in (*numbers, nodes.finite, nodes.nonfinite)]
    for low, high, mean, last, finite, nonfinite in zip(*parts, strict=True):
        bodies = floats.pack(np.concatenate([low, high, mean, last], axis=1))
        full = (finite == width(level)).all(axis=(1, 2)) & (nonfinite == 0).all(axis=(1, 2))
        for index, body in enumerate(bodies):
            # No counts where every record is finite, as nearly everywhere.
            counts = b"" if full[index] else _pack_counts(finite[index], nonfinite[index])
            packed.append(_LENGTH.pack(len(body)) + body + counts)
    return packed


def _pack_counts(finite: npt.NDArray[np.int64], nonfinite: npt.NDArray[np.int64]) -> bytes:
    return compress(_shuffle(np.stack([finite, nonfinite]).astype("<u4")))


def unpack_nodes(bodies: Sequence[bytes], dtype: str, rows: int, count: int, level: int) -> Nodes:
    """The inverse of `pack_nodes` for tiles of as many rows each: arrays of shape (tiles, rows, count)."""
    if plain(dtype, level):
        return unpack_plain(bodies, dtype, rows, count, level)
    return unpack_packed(bodies, dtype, rows, count, level, slice(0, rows))


def unpack_packed(
    bodies: Sequence[bytes], dtype: str, rows: int, count: int, level: int, chosen: slice
) -> Nodes:
    """As `unpack_nodes` of a level that is not `plain`: of the `chosen` rows, one of them or all."""
    parts, counts = [], {}
    for index, body in enumerate(bodies):
        (length,) = _LENGTH.unpack_from(body)
        parts.append(body[_LENGTH.size : _LENGTH.size + length])
        if len(body) > _LENGTH.size + length:
            counts[index] = body[_LENGTH.size + length :]
    one = chosen.stop - chosen.start == 1  # then the same row of each of the four
    fields = slice(chosen.start, None, rows if one else 1)
    numbers = floats.unpack(parts, dtype, 4 * rows, count, fields).reshape(
        len(bodies), 4, -1, count
    )
    finite, nonfinite = _all_finite((len(bodies), numbers.shape[2], count), level)
    if counts:
        finite, nonfinite = finite.copy(), nonfinite.copy()
    for index, packed in counts.items():
        held = _unshuffle(decompress(packed), "<u4", (2, rows, count))
        finite[index], nonfinite[index] = held[:, chosen]
    low, high, mean, last = numbers.transpose(1, 0, 2, 3)
    return Nodes(low, high, mean, last, finite, nonfinite)


def _all_finite(
    shape: tuple[int, ...], level: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many records are finite and how many not where all are finite; not to be written to."""
    return uniform(width(level), shape), uniform(0, shape)


def pack_plain(nodes: Nodes, dtype: str, level: int) -> bytes:
    """Nodes of `level` as they are, as a line of each row: its four numbers as `dtype`, node by node.

    Unless every record is finite, a line goes on with how many are and how many are not, as uint32.
    """
    numbers = np.stack([nodes.min, nodes.max, nodes.mean, nodes.last], axis=1).astype(dtype)
    if (nodes.finite == width(level)).all() and not nodes.nonfinite.any():
        return numbers.tobytes()
    counts = np.stack([nodes.finite, nodes.nonfinite], axis=1).astype("<u4")
    lines = [part.reshape(len(counts), -1).view(np.uint8) for part in (numbers, counts)]
    return np.concatenate(lines, axis=1).tobytes()


def unpack_plain(bodies: Sequence[bytes], dtype: str, rows: int, count: int, level: int) -> Nodes:
    """The inverse of `pack_plain` for several of `rows` rows, or of so many lines of each: (bodies, rows, count)."""
    line = 4 * count * np.dtype(dtype).itemsize
    shape = (len(bodies), rows, count)
    joined = b"".join(bodies)
    if len(joined) == len(bodies) * rows * line:  # none has counts
        finite, nonfinite = _all_finite(shape, level)
        data = np.frombuffer(joined, dtype)
    else:
        finite, nonfinite = (field.copy() for field in _all_finite(shape, level))
        lines = [np.frombuffer(body, np.uint8).reshape(rows, -1) for body in bodies]
        data = np.stack([part[:, :line] for part in lines]).view(dtype)
        for index, part in enumerate(lines):
            if part.shape[1] > line:
                counts = np.ascontiguousarray(part[:, line:]).view("<u4")
                finite[index], nonfinite[index] = counts.reshape(rows, 2, count).transpose(1, 0, 2)
    low, high, mean, last = data.reshape(len(bodies), rows, 4, count).transpose(2, 0, 1, 3)
    return Nodes(low, high, mean, last, finite, nonfinite)


def some_lines(rows: int, chosen: slice) -> str:
    """SQL for the `chosen` lines of a `body` of `rows` rows that `pack_plain` made, so that no more is copied."""
    if chosen.stop - chosen.start == rows:
        return "body"
    line = f"LENGTH(body) / {rows}"
    return f"SUBSTR(body, {chosen.start} * {line} + 1, {chosen.stop - chosen.start} * {line})"


def _shuffle(array: npt.NDArray[Any]) -> bytes:
    """First all lowest bytes of the values, then all second-lowest, ..."""
    return array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T.tobytes()


def _unshuffle(data: bytes, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    places = np.frombuffer(data, np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    return np.ascontiguousarray(places.T).reshape(-1).view(dtype).reshape(shape)


def pack_steps(steps: npt.NDArray[np.int64]) -> bytes:
    """Steps, which mostly rise by a constant."""
    return compress(_shuffle(np.diff(steps, prepend=np.int64(0)).astype("<i8")))


@lru_cache(_STEPS_HELD)
def unpack_steps(body: bytes) -> npt.NDArray[np.int64]:
    """The inverse of `pack_steps`; not to be written to, as runs with the same steps share it."""
    data = decompress(body)
    steps = np.cumsum(_unshuffle(data, "<i8", (len(data) // 8,)), dtype=np.int64)
    steps.setflags(write=False)
    return steps


@lru_cache(_SPANS_HELD)
def unpack_all_steps(rows: tuple[tuple[bytes], ...]) -> npt.NDArray[np.int64]:
    """The steps of consecutive blocks, as rows of one column, as `unpack_steps` gives those of each."""
    steps = np.concatenate([unpack_steps(body) for (body,) in rows])
    steps.setflags(write=False)
    return steps


def pack_scalars(records: Sequence[dict[int, float]]) -> bytes:
    """Scalars of some records, by column: how many each has, their columns, their values."""
    counts = np.array([len(record) for record in records], "<u4")
    columns = np.array([column for record in records for column in record], "<u4")
    values = np.array([value for record in records for value in record.values()], "<f8")
    return join_scalars(counts, columns, values)


def join_scalars(
    counts: npt.NDArray[Any], columns: npt.NDArray[Any], values: npt.NDArray[Any]
) -> bytes:
    """As `pack_scalars`, of arrays: scalars of each record, columns and values of one after the other."""
    return counts.astype("<u4").tobytes() + columns.astype("<u4").tobytes() + values.tobytes()


def unpack_scalars(
    body: bytes, records: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The record number, the column and the value of each scalar that `pack_scalars` was given."""
    counts = np.frombuffer(body, "<u4", records)
    total = int(counts.sum())
    columns = np.frombuffer(body, "<u4", total, 4 * records).astype(np.int64)
    values = np.frombuffer(body, "<f8", total, 4 * (records + total))
    return np.repeat(np.arange(records), counts), columns, values.astype(np.float64)
