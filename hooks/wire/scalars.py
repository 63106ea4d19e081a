"""Rows of scalars, one for each time that a step had something to say, to one `Scalars` record and back.

A training that logs at every step of a fraction of a millisecond makes thousands of rows a second. Packed as columns a
row of one scalar costs 16 bytes, and writing, sending and storing it next to nothing.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TypeAlias

import numpy as np

from trainvitals.hooks.wire.codec import WireError
from trainvitals.hooks.wire.records import Record, Scalars, Step

Row: TypeAlias = tuple[int, tuple[str, ...], Sequence[float]]
"""A step, the names of what it has to say, and their values."""


def pack(rows: Sequence[Row], time: float, seq: int) -> Scalars | Step:
    """1 to `limits.MAX_SCALAR_ROWS` rows as one record, in their order: a plain step where there is only one."""
    steps, names, values = zip(*rows, strict=True)
    if len(rows) == 1:
        scalars = dict(zip(names[0], values[0], strict=True))
        return Step(seq=seq, time=time, step=steps[0], scalars=scalars)
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(names))}
    flat = list(chain.from_iterable(values))
    return Scalars(
        seq=seq,
        time=time,
        names=[list(kind) for kind in kinds],
        kinds=bytes(map(kinds.__getitem__, names)) if len(kinds) > 1 else b"",
        steps=struct.pack(f"<{len(steps)}q", *steps),  # quicker than numpy for so few
        values=struct.pack(f"<{len(flat)}d", *flat),
    )


def unpack(record: Scalars) -> Iterator[tuple[int, dict[str, float]]]:
    """The steps and their scalars, in their order. Raises WireError when the parts do not fit together."""
    steps = np.frombuffer(record.steps, "<i8").tolist() if len(record.steps) % 8 == 0 else []
    kinds = record.kinds or bytes(len(steps))
    if not steps or len(kinds) != len(steps) or max(kinds) >= len(record.names):
        raise WireError(
            f"Scalars of {len(record.names)} kinds do not fit {len(record.steps)} bytes of steps and "
            f"{len(record.kinds)} of kinds."
        )
    if len(record.values) != 8 * sum([len(record.names[kind]) for kind in kinds]):
        raise WireError(
            f"{len(steps)} rows of scalars do not fit {len(record.values)} bytes of values."
        )
    return _rows(record, steps, kinds)


def _rows(
    record: Scalars, steps: list[int], kinds: bytes
) -> Iterator[tuple[int, dict[str, float]]]:
    values = iter(np.frombuffer(record.values, "<f8").tolist())
    for step, kind in zip(steps, kinds, strict=True):
        # zip asks for a name first, so that it takes no value too many
        yield step, dict(zip(record.names[kind], values, strict=False))


def expand(record: Record) -> Iterator[Record]:
    """`record`, or the step records that it stands for."""
    if not isinstance(record, Scalars):
        yield record
        return
    for step, scalars in unpack(record):
        yield Step(seq=record.seq, time=record.time, step=step, scalars=scalars)
