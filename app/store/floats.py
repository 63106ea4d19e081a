"""Arrays of floats to bytes and back, every bit kept, in fewer bytes than they have.

Neighbouring values of one statistic differ in their last digits, which are noise, and hardly in their first ones. So
the bits of each value, read as a whole number, become their distance from one value of the row, with the sign last
(small numbers, whichever way they differ), and are laid out by place: first all highest bytes, then the next ones. The
two highest places compress well, each on its own; the rest mostly not at all, and is kept as it is then.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainvitals.app.store.compression import compress, decompress

_HEAD: Final = struct.Struct("<BII")
"""How rows are coded, and the bytes of the highest and of the second place."""
_DISTANCES, _ROTATED = 0, 1
_AT_A_TIME: Final = 1 << 16
"""Values that are unpacked together: few enough to stay in the processor's cache."""
_PROBES: Final = 9
"""Values of a row of which the middle one becomes its reference."""


def pack(values: npt.NDArray[Any]) -> list[bytes]:
    """Bytes of each of some arrays; `values` has shape (arrays, rows, n) and dtype float32 or float64."""
    size = values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(f"<u{size}")
    count, rows, length = bits.shape
    top = bits.dtype.type(8 * size - 1)
    one = bits.dtype.type(1)
    probes = np.sort(bits[:, :, :: max(1, length // _PROBES)], axis=2)
    reference = probes[:, :, probes.shape[2] // 2]
    signs = (bits >> top).reshape(count, -1).sum(axis=1, dtype=np.int64)
    rotated = (signs > 0) & (signs < rows * length)  # numbers of both signs are far apart as bits
    distance = bits - reference[:, :, None]
    folded = (distance << one) ^ (0 - (distance >> top))
    if rotated.any():
        folded[rotated] = (bits[rotated] << one) | (bits[rotated] >> top)
    places = np.empty((count, size, rows * length), np.uint8)
    flat = folded.reshape(count, -1)
    for place in range(size):
        places[:, place] = flat >> bits.dtype.type(8 * (size - 1 - place))
    # Bytes of noise are zero once in 256 times; trying to compress them would cost as much as all else.
    noise = (places[:, 2:] == 0).sum(axis=(1, 2)) * 64 < (size - 2) * rows * length
    packed = []
    for index in range(count):
        first, second = _smaller(places[index, 0]), _smaller(places[index, 1])
        rest = places[index, 2:].tobytes() if noise[index] else _smaller(places[index, 2:])
        coded = _ROTATED if rotated[index] else _DISTANCES
        start = b"" if rotated[index] else reference[index].tobytes()
        head = _HEAD.pack(coded, len(first), len(second))
        packed.append(b"".join((head, start, first, second, rest)))
    return packed


def _smaller(places: npt.NDArray[np.uint8]) -> bytes:
    raw = places.tobytes()
    packed = compress(raw)
    return packed if len(packed) < len(raw) else raw


def unpack(
    bodies: Sequence[bytes], dtype: str, rows: int, length: int, chosen: slice = slice(None)
) -> npt.NDArray[Any]:
    """The inverse of `pack`: shape (arrays, rows, length), of the `chosen` rows alone.

    Raises ValueError and zstandard.ZstdError for damaged bytes.
    """
    values = np.empty((len(bodies), len(range(rows)[chosen]), length), dtype)
    some = max(1, _AT_A_TIME // (rows * length))
    for low in range(0, len(bodies), some):
        part = slice(low, low + some)
        values[part] = _unpack(bodies[part], dtype, rows, length, chosen)
    return values


def _unpack(
    bodies: Sequence[bytes], dtype: str, rows: int, length: int, chosen: slice
) -> npt.NDArray[Any]:
    size = np.dtype(dtype).itemsize
    kind = np.dtype(f"<u{size}").type
    count, cells = len(bodies), rows * length
    parts: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
    starts = []
    rotated = np.zeros(count, np.bool_)
    unknown = bytes(rows * size)
    for index, body in enumerate(bodies):
        coded, first, second = _HEAD.unpack_from(body)
        at = _HEAD.size
        if coded == _DISTANCES:
            starts.append(body[at : at + rows * size])
            at += rows * size
        else:
            starts.append(unknown)
            rotated[index] = True
        parts[0].append(_whole(body[at : at + first], cells))
        at += first
        parts[1].append(_whole(body[at : at + second], cells))
        parts[2].append(_whole(body[at + second :], (size - 2) * cells))
    reference = np.frombuffer(b"".join(starts), kind).reshape(count, rows)[:, chosen, None]
    folded = np.empty((count, reference.shape[1], length), kind)
    octets = folded.view(np.uint8).reshape(*folded.shape, size)
    highest = size
    for part in parts:
        held = np.frombuffer(b"".join(part), np.uint8).reshape(count, -1, rows, length)
        for place in range(held.shape[1]):
            highest -= 1
            octets[..., highest] = held[:, place, chosen]
    one = kind(1)
    bits = ((folded >> one) ^ (0 - (folded & one))) + reference
    if rotated.any():
        turned = folded[rotated]
        bits[rotated] = (turned >> one) | (turned << kind(8 * size - 1))
    values: npt.NDArray[Any] = bits.view(dtype)
    return values


def _whole(part: bytes, size: int) -> bytes:
    return part if len(part) == size else decompress(part)
