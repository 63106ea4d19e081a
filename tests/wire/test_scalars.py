"""Rows of scalars become one record and come back as they were."""

import math
import struct
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainvitals.hooks.wire import codec, limits
from trainvitals.hooks.wire.records import Scalars, Start, Step
from trainvitals.hooks.wire.scalars import Row, expand, pack, unpack
from trainvitals.hooks.wire.validate import _validate_record as validate

names = st.lists(st.sampled_from(["loss", "lr", "acc", "tv/grad_norm"]), unique=True).map(tuple)
rows = names.flatmap(
    lambda kind: st.tuples(
        st.integers(0, limits.MAX_STEP),
        st.just(kind),
        st.lists(st.floats(), min_size=len(kind), max_size=len(kind)),
    )
)


def bits(steps: list[tuple[int, dict[str, float]]]) -> list[Any]:
    """As compared: names in their order, values bit by bit, so that NaN equals itself."""
    return [
        (step, [(name, struct.pack("<d", value)) for name, value in scalars.items()])
        for step, scalars in steps
    ]


@given(st.lists(rows, min_size=1, max_size=limits.MAX_SCALAR_ROWS))
def test_rows_come_back_in_their_order_bit_by_bit(given_rows: list[Row]) -> None:
    record = codec.decode_record(codec.encode_record(pack(given_rows, 1.5, 7)))
    assert (record.seq, record.time) == (7, 1.5)
    validate(record)
    steps = list(expand(record))
    assert all(isinstance(step, Step) for step in steps)
    expected = [(step, dict(zip(kind, values, strict=True))) for step, kind, values in given_rows]
    assert bits([(step.step, step.scalars) for step in steps]) == bits(expected)  # type: ignore[union-attr]


def test_nan_keeps_its_bits() -> None:
    odd = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_DEAD))[0]
    record = pack([(0, ("a",), [odd]), (1, ("a",), [math.inf])], 1.0, 1)
    assert isinstance(record, Scalars)
    assert record.values == struct.pack("<Q", 0x7FF8_0000_0000_DEAD) + struct.pack("<d", math.inf)


def test_a_step_alone_stays_a_step() -> None:
    record = pack([(3, ("a", "b"), [1.0, 2.0])], 1.0, 4)
    assert record == Step(seq=4, time=1.0, step=3, scalars={"a": 1.0, "b": 2.0})


def test_other_records_stand_for_themselves() -> None:
    start = Start(seq=0, time=1.0, project="p", name="n")
    assert list(expand(start)) == [start]


def test_a_scalar_at_every_step_takes_17_bytes_at_most() -> None:
    table = [(step, ("train/loss",), [1 / (step + 1)]) for step in range(limits.MAX_SCALAR_ROWS)]
    assert len(codec.encode_record(pack(table, 1e9, 10**6))) <= 17 * len(table)


@given(
    st.lists(names.map(list), max_size=4),
    st.binary(max_size=64),
    st.binary(max_size=64),
    st.binary(max_size=8),
)
def test_parts_that_do_not_fit_are_refused_before_a_row_is_read(
    kinds: list[list[str]], steps: bytes, values: bytes, which: bytes
) -> None:
    record = Scalars(seq=1, time=1.0, names=kinds, steps=steps, values=values, kinds=which)
    try:
        found = list(unpack(record))
    except codec.WireError:
        return
    assert len(found) == len(steps) / 8
    flat = [value for _, scalars in found for value in scalars.values()]
    assert np.array(flat, "<f8").tobytes() == values
