"""Bytes to records and back: batches for HTTP, frames for the spool, arrays inside both.

A batch on the wire is `MAGIC`, one byte of compression (0 none, 1 zlib), the raw length and the CRC-32 of the raw
bytes (both uint32, little-endian), then the msgpack of a `Batch`. A frame in a spool is the length and the CRC-32
of its payload (both uint32, little-endian), then the msgpack of one record.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from trainvitals.hooks.wire import limits, varints
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.records import Batch, Record

MAGIC = b"TVB1"
_HEADER = struct.Struct("<4sBII")
HEADER_BYTES = _HEADER.size
_FRAME = struct.Struct("<II")
FRAME_BYTES = _FRAME.size
_NO_COMPRESSION, _ZLIB = 0, 1
_PROBE_BYTES = 32 << 10
"""The start of a batch that is compressed to see whether that pays."""
_WORTH = 0.8
"""Share of its size that compression has to bring a batch below."""

_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(Batch)
_record_decoder = msgspec.msgpack.Decoder(Record)


class WireError(ValueError):
    """Bytes that are no valid batch or record. The message says what was wrong and what was expected."""


class UnknownVersion(WireError):  # noqa: N818 - reads as what it says
    """A batch in a record format that this side does not know."""


class TooLarge(WireError):  # noqa: N818
    """Something over the limits of `limits`."""


def encode_record(record: Record) -> bytes:
    """msgpack of one record."""
    return _encoder.encode(record)


def decode_record(payload: bytes) -> Record:
    """The record in `payload`. Raises WireError."""
    try:
        record: Record = _record_decoder.decode(payload)
        return record
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"This is no record: {error}.") from error


def encode_batch(batch: Batch) -> bytes:
    """A batch as it travels: compressed where that pays.

    Samples are floats, which hardly shrink, and to unpack them would be a third of what a batch costs the server.
    """
    raw = _encoder.encode(batch)
    probe = raw[:_PROBE_BYTES]
    pays = len(zlib.compress(probe, 1)) < _WORTH * len(probe)
    kind, packed = (_ZLIB, zlib.compress(raw, 1)) if pays else (_NO_COMPRESSION, raw)
    return _HEADER.pack(MAGIC, kind, len(raw), zlib.crc32(raw)) + packed


def unpacked_size(head: bytes) -> int:
    """How many bytes a batch that starts with `head`, its first `HEADER_BYTES`, unpacks to. Raises WireError."""
    if len(head) < _HEADER.size or head[:4] != MAGIC:
        raise WireError(
            f"The body does not start like a batch (expected {MAGIC!r} and a 13-byte header). "
            "Was it sent by trainvitals.hooks?"
        )
    length: int = _HEADER.unpack_from(head)[2]
    if length > limits.MAX_BATCH_RAW_BYTES:
        raise TooLarge(
            f"The batch unpacks to {length:,} bytes; at most {limits.MAX_BATCH_RAW_BYTES:,} are taken."
        )
    return length


def decode_batch(body: bytes) -> Batch:
    """The batch in `body`, its form checked but not yet its meaning (see `validate`). Raises WireError."""
    if len(body) > limits.MAX_BATCH_BYTES:
        raise TooLarge(
            f"The batch has {len(body):,} bytes; at most {limits.MAX_BATCH_BYTES:,} are taken. "
            "Send fewer records at a time."
        )
    length = unpacked_size(body)
    _, compression, _, crc = _HEADER.unpack_from(body)
    raw = _decompress(body[_HEADER.size :], compression, length)
    if zlib.crc32(raw) != crc:
        raise WireError(
            "The batch was damaged on its way: its checksum does not match. Send it again."
        )
    _check_version(raw)
    try:
        return _batch_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(
            f"The batch does not have the form of version {limits.VERSION}: {error}."
        ) from error


def _decompress(packed: bytes, compression: int, length: int) -> bytes:
    if compression == _NO_COMPRESSION:
        raw = packed
    elif compression == _ZLIB:
        inflate = zlib.decompressobj()
        try:
            raw = inflate.decompress(packed, length + 1)
        except zlib.error as error:
            raise WireError(f"The batch was damaged on its way: {error}. Send it again.") from error
        if not inflate.eof:
            raise WireError("The batch is cut off or longer than its header says. Send it again.")
    else:
        raise WireError(f"Unknown compression {compression}; expected 0 (none) or 1 (zlib).")
    if len(raw) != length:
        raise WireError(
            f"The batch unpacks to {len(raw):,} bytes, its header says {length:,}. Send it again."
        )
    return raw


class _Version(msgspec.Struct):
    version: int


_version_decoder = msgspec.msgpack.Decoder(_Version)


def _check_version(raw: bytes) -> None:
    try:
        version = _version_decoder.decode(raw).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"The batch names no version: {error}.") from error
    if not limits.OLDEST_VERSION <= version <= limits.VERSION:
        raise UnknownVersion(
            f"The batch is in version {version}; this server knows versions {limits.OLDEST_VERSION} to "
            f"{limits.VERSION}. "
            "Bring trainvitals to the same release on both sides."
        )


def frame(payload: bytes) -> bytes:
    """`payload` as a spool frame."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def payload_at(data: bytes, begin: int) -> bytes | None:
    """The payload of the frame that begins at byte `begin` of `data`; None where there is no whole, sound frame."""
    if begin < 0 or begin + _FRAME.size > len(data):
        return None
    length, crc = _FRAME.unpack_from(data, begin)
    payload = data[begin + _FRAME.size : begin + _FRAME.size + length]
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def read_frames(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each whole frame's payload and the position after it; stop before a frame that is not whole yet.

    A frame is cut off where a process was killed in mid-write, or is being written right now.
    Raises WireError at a frame whose checksum is wrong.
    """
    position = file.tell()
    while len(header := file.read(_FRAME.size)) == _FRAME.size:
        length, crc = _FRAME.unpack(header)
        if length > limits.MAX_RECORD_BYTES:
            raise WireError(
                f"At byte {position}: a frame of {length:,} bytes is no frame; the spool is damaged."
            )
        payload = file.read(length)
        if len(payload) < length:
            return
        if zlib.crc32(payload) != crc:
            raise WireError(
                f"At byte {position}: the frame's checksum is wrong; the spool is damaged."
            )
        position += _FRAME.size + length
        yield payload, position


def pack_floats(values: npt.NDArray[np.floating]) -> bytes:
    """float32, little-endian, in C order."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def unpack_floats(data: bytes, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Shape `(rows, columns)`. Raises WireError when the length does not fit."""
    if len(data) != 4 * rows * columns:
        raise WireError(
            f"A sample of {rows} rows × {columns} columns has {4 * rows * columns} bytes; got {len(data)}."
        )
    return np.frombuffer(data, dtype="<f4").reshape(rows, columns)


_VARINTS = 0x80
"""Mark in the first byte of packed counts: the counts are varints. Version 1 had them as uint32, little-endian."""


def pack_counts(counts: npt.NDArray[np.integer]) -> bytes:
    """Histogram counts of shape `(rows, BINS)` without the empty bins at both ends.

    Layout: first filled bin of each row (uint8), number of bins from there to the last filled one (uint8), then
    those counts of all rows one after the other (`varints`). A row takes 2 bytes and 1 to 5 for each of its bins:
    at most 264 where at most a million values were counted.
    """
    return pack_counts_of([counts])[0]


def pack_counts_of(groups: Sequence[npt.NDArray[np.integer]]) -> list[bytes]:
    """`pack_counts` of each, in one go: a record holds those of several kinds, most of them small."""
    counts = np.concatenate(groups)
    filled = counts != 0
    rows = np.arange(len(counts))
    first = filled.argmax(axis=1)
    length = (BINS - filled[:, ::-1].argmax(axis=1) - first) * filled[rows, first]
    bins = np.concatenate([[0], np.cumsum(length)])  # up to each row
    kept = np.repeat(rows * BINS + first - bins[:-1], length) + np.arange(bins[-1])
    ends = list(accumulate(map(len, groups)))
    bodies = varints.encode_parts(counts.reshape(-1)[kept], bins[ends].tolist())
    firsts, lengths = (part.astype(np.uint8).tobytes() for part in (first, length))
    packed, begin = [], 0
    for end, body in zip(ends, bodies, strict=True):
        head = bytearray(firsts[begin:end] + lengths[begin:end])
        if body:
            head[0] |= _VARINTS
        packed.append(bytes(head) + body)
        begin = end
    return packed


def unpack_counts(data: bytes, rows: int) -> npt.NDArray[np.uint32]:
    """Shape `(rows, BINS)`. Raises WireError when the bytes do not fit."""
    first, length, body, packed = _open_counts(data, rows)
    kept = _decode_counts(body, packed, rows)
    if len(kept) != int(length.sum()):
        raise _misfit(data, rows)
    counts = np.zeros((rows, BINS), dtype=np.uint32)
    bins = np.arange(BINS)
    place = bins - first[:, None]
    counts[(place >= 0) & (place < length[:, None])] = kept
    return counts


def unpack_rows_of_counts(packed: Sequence[bytes], rows: int, row: int) -> npt.NDArray[np.uint32]:
    """The same row of several results of `pack_counts`, without unpacking the others; shape `(len(packed), BINS)`.

    Raises WireError.
    """
    counts = np.zeros((len(packed), BINS), dtype=np.uint32)
    cut: list[npt.NDArray[np.uint8]] = []  # varints are decoded all at once
    places: list[npt.NDArray[np.int64]] = []
    for index, data in enumerate(packed):
        first, length, body, as_varints = _open_counts(data, rows)
        begin, many = int(length[:row].sum()), int(length[row])
        if as_varints:
            ends = varints.ends(body[: varints.MOST * (begin + many)])
        else:
            ends = 4 * np.arange(1, len(body) // 4 + 1)
        if begin + many > len(ends):
            raise _misfit(data, rows)
        if many:
            part = body[ends[begin - 1] if begin else 0 : ends[begin + many - 1]]
            at = index * BINS + first[row] + np.arange(many)
            if as_varints:
                cut.append(part)
                places.append(at)
            else:
                counts.reshape(-1)[at] = _decode_counts(part, as_varints, rows)
    if cut:
        counts.reshape(-1)[np.concatenate(places)] = _decode_counts(np.concatenate(cut), True, rows)
    return counts


def split_counts(data: bytes, rows: int, most: int) -> list[bytes]:
    """A result of `pack_counts` as several, of `most` rows each and the last of what is left. Raises WireError."""
    first, length, body, packed = _open_counts(data, rows)
    ends = varints.ends(body) if packed else 4 * np.arange(1, len(body) // 4 + 1)
    if int(length.sum()) > len(ends):
        raise _misfit(data, rows)
    bounds = np.concatenate(([0], ends))[np.concatenate(([0], np.cumsum(length)))]
    parts = []
    for low in range(0, rows, most):
        high = min(low + most, rows)
        head = bytearray(first[low:high].astype(np.uint8).tobytes())
        head += length[low:high].astype(np.uint8).tobytes()
        kept = body[bounds[low] : bounds[high]].tobytes()
        if packed and kept:
            head[0] |= _VARINTS
        parts.append(bytes(head) + kept)
    return parts


def _open_counts(
    data: bytes, rows: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8], bool]:
    """First bin and number of bins of each row, the counts as bytes, whether they are varints."""
    whole = np.frombuffer(data, np.uint8)
    if len(whole) < 2 * rows or rows < 1:
        raise _misfit(data, rows)
    packed = bool(whole[0] & _VARINTS)
    first = whole[:rows].astype(np.int64)
    first[0] &= ~_VARINTS
    length = whole[rows : 2 * rows].astype(np.int64)
    if (first + length > BINS).any():
        raise _misfit(data, rows)
    return first, length, whole[2 * rows :], packed


def _decode_counts(body: npt.NDArray[np.uint8], packed: bool, rows: int) -> npt.NDArray[np.uint32]:
    try:
        return varints.decode(body) if packed else np.frombuffer(body.tobytes(), "<u4")
    except ValueError as error:
        raise WireError(f"Packed histograms of {rows} rows cannot be read: {error}.") from error


def _misfit(data: bytes, rows: int) -> WireError:
    return WireError(f"Packed histograms of {rows} rows do not fit their {len(data)} bytes.")
