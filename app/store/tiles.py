"""What the tables hold as bytes: tiles of records and of nodes, steps, rows of scalars."""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store import floats
from trainvitals.app.store.compression import compress, decompress
from trainvitals.app.store.pyramid import Nodes
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


def pack_nodes(nodes: Nodes, dtype: str, width: int) -> list[bytes]:
    """Nodes of `width` records each, shape (rows, n), as tiles of `TILE_ROWS` rows, their numbers as `dtype`."""
    numbers = [
        field.astype(dtype, copy=False) for field in (nodes.min, nodes.max, nodes.mean, nodes.last)
    ]
    packed = []
    parts = [_by_tile(field) for field in (*numbers, nodes.finite, nodes.nonfinite)]
    for low, high, mean, last, finite, nonfinite in zip(*parts, strict=True):
        bodies = floats.pack(np.concatenate([low, high, mean, last], axis=1))
        full = (finite == width).all(axis=(1, 2)) & (nonfinite == 0).all(axis=(1, 2))
        for index, body in enumerate(bodies):
            # No counts where every record is finite, as nearly everywhere.
            counts = b"" if full[index] else _pack_counts(finite[index], nonfinite[index])
            packed.append(_LENGTH.pack(len(body)) + body + counts)
    return packed


def _pack_counts(finite: npt.NDArray[np.int64], nonfinite: npt.NDArray[np.int64]) -> bytes:
    return compress(_shuffle(np.stack([finite, nonfinite]).astype("<u4")))


def unpack_nodes(
    bodies: Sequence[bytes], dtype: str, rows: int, count: int, width: int, row: int | None = None
) -> Nodes:
    """Tiles of nodes, arrays of shape (tiles, rows, count), or (tiles, 1, count) of the one `row`."""
    parts = []
    full = np.ones(len(bodies), np.bool_)
    for index, body in enumerate(bodies):
        (length,) = _LENGTH.unpack_from(body)
        parts.append(body[_LENGTH.size : _LENGTH.size + length])
        full[index] = len(body) == _LENGTH.size + length
    chosen = slice(None) if row is None else slice(row, row + 1)
    fields = slice(row, None, 1 if row is None else rows)  # the same row of each of the four
    numbers = floats.unpack(parts, dtype, 4 * rows, count, fields).reshape(
        len(bodies), 4, -1, count
    )
    shape = numbers[:, 0].shape
    finite = np.broadcast_to(np.int64(width), shape)
    nonfinite = np.broadcast_to(np.int64(0), shape)
    if not full.all():
        finite, nonfinite = finite.copy(), nonfinite.copy()
    for index in np.flatnonzero(~full).tolist():
        packed = decompress(bodies[index][_LENGTH.size + len(parts[index]) :])
        counts = _unshuffle(packed, "<u4", (2, rows, count))[:, chosen]
        finite[index], nonfinite[index] = counts
    low, high, mean, last = numbers.transpose(1, 0, 2, 3)
    return Nodes(low, high, mean, last, finite, nonfinite)


def pack_fresh(nodes: Nodes, dtype: str) -> bytes:
    """Nodes of shape (rows, n) that wait for a block of their own, as they are."""
    numbers = np.stack([nodes.min, nodes.max, nodes.mean, nodes.last]).astype(dtype)
    counts = np.stack([nodes.finite, nodes.nonfinite]).astype("<u2")
    return numbers.tobytes() + counts.tobytes()


def unpack_fresh(
    bodies: Sequence[bytes], dtype: str, rows: int, chosen: slice = slice(None)
) -> Nodes:
    """The inverse of `pack_fresh` for several of as many nodes each: arrays of shape (bodies, rows, n).

    chosen: the rows that are wanted.
    """
    size = 4 * np.dtype(dtype).itemsize
    count = len(bodies[0]) // rows // (size + 4)
    data = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)
    split = size * rows * count
    shape = (len(bodies), -1, rows, count)
    numbers = data[:, :split].view(dtype).reshape(shape)[:, :, chosen]
    counts = data[:, split:].view("<u2").reshape(shape)[:, :, chosen]
    return Nodes(*numbers.transpose(1, 0, 2, 3), *counts.astype(np.int64).transpose(1, 0, 2, 3))


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
