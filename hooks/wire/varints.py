"""Whole numbers in as many bytes as they need: seven bits a byte, lowest first, the top bit says that more follow.

The counts of a histogram mostly take one or two bytes instead of four.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MOST = 5
"""Bytes of the largest uint32."""


def encode(numbers: npt.NDArray[np.integer]) -> bytes:
    """Numbers from 0 to 2^32 - 1, of shape (n,)."""
    return encode_parts(numbers, [len(numbers)])[0]


def encode_parts(numbers: npt.NDArray[np.integer], ends: Sequence[int]) -> list[bytes]:
    """`encode` of the numbers up to each of `ends`, from the one before it; the last is their number."""
    rest = numbers.astype(np.uint32)
    largest = int(rest.max(initial=0))
    sizes = np.ones(len(rest), np.intp)
    for bits in range(7, max(largest.bit_length(), 1), 7):
        sizes += rest >= np.uint32(1 << bits)
    behind = np.cumsum(sizes)
    bounds = [int(behind[end - 1]) if end else 0 for end in ends]
    whole = np.empty(bounds[-1] if bounds else 0, np.uint8)
    places = behind - sizes
    while len(rest):  # the lowest bits of all, the next ones of those that have more, ...
        following = np.flatnonzero(rest > 127)
        whole[places] = rest & np.uint32(127)
        whole[places[following]] |= np.uint8(128)
        places, rest = places[following] + 1, rest[following] >> np.uint32(7)
    data = whole.tobytes()
    return [data[begin:end] for begin, end in zip([0, *bounds], bounds, strict=False)]


def decode(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The inverse of `encode`. Raises ValueError for what is none of its results."""
    if not len(data):
        return np.zeros(0, np.uint32)
    stops = ends(data)
    starts = np.concatenate([[0], stops[:-1]])
    lengths = stops - starts
    if stops[-1] != len(data) or lengths.max() > MOST:
        raise ValueError("a number is cut off or too long")
    place = np.arange(len(data)) - np.repeat(starts, lengths)
    parts = (data & np.uint8(127)).astype(np.uint64) << (7 * place).astype(np.uint64)
    numbers = np.add.reduceat(parts, starts)
    if numbers.max() >= 1 << 32:
        raise ValueError("a number does not fit 32 bits")
    return numbers.astype(np.uint32)


def ends(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Where each number ends, one past its last byte; the last one may be cut off, and is left out then."""
    found: npt.NDArray[np.int64] = np.flatnonzero(data < 128) + 1
    return found if len(found) else np.zeros(1, np.int64)
