"""Arrays to bytes and back: bytes shuffled by place, then zstd, which does well on them."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from trainvitals.app.store.pyramid import Nodes
from trainvitals.hooks.wire.columns import MISSING_BITS

TILE_ROWS = 8
"""Rows in a tile of records: few, as a page of one layer reads one row of all columns."""
NODE_ROWS = 32
"""Rows in a tile of nodes."""
MISSING_BITS_64 = 0x7FF8_0000_0000_DEAD
"""float64 bit pattern for "not recorded at this step", apart from a real NaN."""

MISSING: dict[str, np.floating[Any]] = {
    "<f4": np.array([MISSING_BITS], "<u4").view("<f4")[0],
    "<f8": np.array([MISSING_BITS_64], "<u8").view("<f8")[0],
}


class _Codecs(threading.local):
    """zstd contexts are costly to make, and may not be shared by threads."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_codecs = _Codecs()


def compress(data: bytes) -> bytes:
    """zstd, level 1."""
    return _codecs.compress(data)


def decompress(data: bytes) -> bytes:
    """The inverse of `compress`."""
    return _codecs.decompress(data)


def shuffle(array: npt.NDArray[Any]) -> bytes:
    """First all lowest bytes of the values, then all second-lowest, ..."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).reshape(flat.size, flat.itemsize).T.tobytes()


def unshuffle(data: bytes, dtype: str, shape: tuple[int, ...], offset: int = 0) -> npt.NDArray[Any]:
    """The inverse of `shuffle`, from `offset` bytes on."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape))
    places = np.frombuffer(data, np.uint8, count * kind.itemsize, offset)
    flat = np.ascontiguousarray(places.reshape(kind.itemsize, count).T)
    return flat.reshape(-1).view(kind).reshape(shape)


def pack_values(values: npt.NDArray[Any]) -> bytes:
    """Values of shape (rows, records) as a tile; every bit is kept."""
    return compress(shuffle(values))


def unpack_values(body: bytes, dtype: str, rows: int, records: int) -> npt.NDArray[Any]:
    """The inverse of `pack_values`."""
    return unshuffle(decompress(body), dtype, (rows, records))


def pack_nodes(nodes: Nodes, dtype: str) -> bytes:
    """Nodes of shape (rows, n), their numbers as `dtype`."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.stack([nodes.min, nodes.max, nodes.mean, nodes.last]).astype(dtype)
    counts = np.stack([nodes.finite, nodes.nonfinite]).astype("<u4")
    return compress(shuffle(numbers) + shuffle(counts))


def unpack_nodes(bodies: Sequence[bytes], dtype: str, rows: int, count: int) -> Nodes:
    """The inverse of `pack_nodes` for blocks one after the other: shape (rows, blocks * count)."""
    blocks, size = len(bodies), np.dtype(dtype).itemsize
    data = np.frombuffer(b"".join(map(decompress, bodies)), np.uint8).reshape(blocks, -1)
    split = 4 * rows * count * size

    def whole(places: npt.NDArray[np.uint8], kind: str, fields: int) -> npt.NDArray[Any]:
        # (blocks, bytes of a value, fields, rows, count) to (fields, rows, blocks, count, bytes)
        shaped = places.reshape(blocks, np.dtype(kind).itemsize, fields, rows, count)
        values = np.ascontiguousarray(shaped.transpose(2, 3, 0, 4, 1)).view(kind)
        return values.reshape(fields, rows, blocks * count)

    numbers = whole(data[:, :split], dtype, 4).astype(np.float64)
    counts = whole(data[:, split:], "<u4", 2).astype(np.int64)
    return Nodes(*numbers, *counts)


def pack_steps(steps: npt.NDArray[np.int64]) -> bytes:
    """Steps, which mostly rise by a constant."""
    return compress(shuffle(np.diff(steps, prepend=np.int64(0)).astype("<i8")))


def unpack_steps(body: bytes) -> npt.NDArray[np.int64]:
    """The inverse of `pack_steps`."""
    data = decompress(body)
    return np.cumsum(unshuffle(data, "<i8", (len(data) // 8,)), dtype=np.int64)


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
