"""Whatever is encoded comes back the same; whatever is damaged is refused with a reason."""

import io
import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainvitals.hooks.wire import codec, limits
from trainvitals.hooks.wire.bins import BINS, ZERO_BIN, bin_of, centers, edges
from trainvitals.hooks.wire.columns import MISSING_BITS
from trainvitals.hooks.wire.records import (
    Batch,
    End,
    Event,
    Layout,
    Record,
    Row,
    Sample,
    Start,
    Step,
)
from trainvitals.hooks.wire.validate import validate_batch

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
floats = st.floats(allow_nan=True, allow_infinity=True)
steps = st.builds(
    Step,
    seq=st.integers(1, 100),
    time=st.floats(0, 4e9),
    step=st.integers(0, limits.MAX_STEP),
    scalars=st.dictionaries(names, floats, max_size=5),
    samples=st.lists(
        st.builds(Sample, group=st.integers(0, 255), values=st.binary(max_size=40)), max_size=2
    ),
)
rows = st.builds(Row, name=names, layer=names, shape=st.lists(st.integers(0, 9)).map(tuple))
layouts = st.builds(
    Layout,
    seq=st.integers(1, 100),
    time=st.just(1.0),
    step=st.integers(0, 10),
    group=st.integers(0, 255),
    kind=st.sampled_from(["activation", "parameter"]),
    rows=st.lists(rows, max_size=3),
    columns=st.lists(names, max_size=3),
)
events = st.builds(
    Event,
    seq=st.integers(1, 100),
    time=st.just(1.0),
    step=st.integers(0, 10),
    kind=names,
    data=st.dictionaries(names, st.none() | st.booleans() | st.integers(0, 9) | names, max_size=3),
)


counted = st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 2**32 - 1))


def same(first: Record, second: Record) -> bool:
    """Equal, with NaN equal to itself."""
    return codec.encode_record(first) == codec.encode_record(second)


def batch_of(*records: Record, first: int = 0) -> Batch:
    return Batch(
        version=limits.VERSION, run="r", attempt="a", rank=0, first=first, records=list(records)
    )


def start(seq: int = 0) -> Start:
    return Start(seq=seq, time=1.0, project="p", name="n")


@given(st.one_of(steps, layouts, events))
def test_every_record_survives_its_encoding(record: Record) -> None:
    decoded = codec.decode_record(codec.encode_record(record))
    assert type(decoded) is type(record)
    assert same(decoded, record)


@given(st.lists(st.one_of(steps, layouts, events), max_size=5))
def test_every_batch_survives_its_way(records: list[Record]) -> None:
    batch = batch_of(*records, first=3)
    decoded = codec.decode_batch(codec.encode_batch(batch))
    assert all(same(a, b) for a, b in zip(decoded.records, records, strict=True))
    assert (decoded.run, decoded.attempt, decoded.rank, decoded.first) == ("r", "a", 0, 3)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_not_crashed_on(body: bytes) -> None:
    with pytest.raises(codec.WireError):
        codec.decode_batch(body)


@settings(max_examples=200)
@given(st.data())
def test_a_flipped_bit_never_passes_unnoticed(data: st.DataObject) -> None:
    batch = batch_of(start(), Step(seq=1, time=1.0, step=0, scalars={"loss": 0.5}))
    body = bytearray(codec.encode_batch(batch))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = codec.decode_batch(bytes(body))
    except codec.WireError:
        return
    assert decoded == batch  # a bit that zlib does not use


def test_an_unknown_version_is_told_apart() -> None:
    batch = Batch(version=99, run="r", attempt="a", rank=0, first=0, records=[])
    with pytest.raises(codec.UnknownVersion, match="version 99"):
        codec.decode_batch(codec.encode_batch(batch))


@pytest.mark.parametrize("version", range(limits.OLDEST_VERSION, limits.VERSION + 1))
def test_a_client_may_be_behind_its_server(version: int) -> None:
    batch = Batch(version=version, run="r", attempt="a", rank=0, first=0, records=[start()])
    assert codec.decode_batch(codec.encode_batch(batch)) == batch


def test_a_small_bomb_stays_small() -> None:
    raw = b"\0" * (limits.MAX_BATCH_RAW_BYTES + 1)
    header = codec._HEADER.pack(codec.MAGIC, 1, len(raw), 0)
    with pytest.raises(codec.TooLarge, match="unpacks to"):
        codec.decode_batch(header + zlib.compress(raw))
    lying = codec._HEADER.pack(codec.MAGIC, 1, 100, 0)
    with pytest.raises(codec.WireError, match="longer than its header says"):
        codec.decode_batch(lying + zlib.compress(raw))


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 70))
def test_frames_come_back_up_to_the_last_whole_one(payloads: list[bytes], cut: int) -> None:
    whole = b"".join(codec.frame(payload) for payload in payloads)
    file = io.BytesIO(whole[: max(len(whole) - cut, 0)])
    found = list(codec.read_frames(file))
    expected, end = [], 0
    for payload in payloads:
        end += len(codec.frame(payload))
        if end <= len(whole) - cut:
            expected.append((payload, end))
    assert found == expected


@given(
    arrays(
        np.int64, st.tuples(st.integers(1, 6), st.just(BINS)), elements=st.integers(0, 2**32 - 1)
    )
)
def test_counts_survive_their_packing(counts: np.ndarray) -> None:
    assert np.array_equal(codec.unpack_counts(codec.pack_counts(counts), len(counts)), counts)


@given(st.binary(max_size=64), st.integers(1, 4))
def test_arbitrary_bytes_are_no_counts_or_well_formed_ones(data: bytes, count: int) -> None:
    try:
        unpacked = codec.unpack_counts(data, count)
    except codec.WireError:
        return
    assert unpacked.shape == (count, BINS)


def test_counts_of_version_1_are_still_read() -> None:
    counts = np.zeros((3, BINS), dtype=np.uint32)
    counts[0, 40:44] = [1, 0, 70_000, 3]
    counts[2, 95] = 2**32 - 1
    old = bytes([40, 0, 95, 4, 0, 1]) + np.array([1, 0, 70_000, 3, 2**32 - 1], "<u4").tobytes()
    assert np.array_equal(codec.unpack_counts(old, 3), counts)
    for row in range(3):
        assert np.array_equal(codec.unpack_rows_of_counts([old], 3, row)[0], counts[row])


@given(arrays(np.uint32, st.tuples(st.integers(1, 6), st.just(BINS)), elements=counted))
def test_one_row_of_counts_is_read_without_the_others(counts: np.ndarray) -> None:
    packed = codec.pack_counts(counts)
    for row in range(len(counts)):
        assert np.array_equal(
            codec.unpack_rows_of_counts([packed], len(counts), row)[0], counts[row]
        )


def test_empty_histograms_take_two_bytes_a_row() -> None:
    assert codec.pack_counts(np.zeros((3, BINS), dtype=np.int64)) == b"\0" * 6


@given(arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 5))))
def test_floats_survive_bit_by_bit(values: np.ndarray) -> None:
    unpacked = codec.unpack_floats(codec.pack_floats(values), *values.shape)
    assert np.array_equal(unpacked.view(np.uint32), values.view(np.uint32))


def test_missing_is_kept_apart_from_nan() -> None:
    values = np.array([[MISSING_BITS, 0x7FC0_0000]], dtype=np.uint32).view(np.float32)
    unpacked = codec.unpack_floats(codec.pack_floats(values), 1, 2)
    assert np.isnan(unpacked).all()
    assert unpacked.view(np.uint32)[0].tolist() == [MISSING_BITS, 0x7FC0_0000]


def test_floats_of_another_size_are_refused() -> None:
    with pytest.raises(codec.WireError, match="2 rows × 3 columns"):
        codec.unpack_floats(b"\0" * 20, 2, 3)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_each_value_lies_in_its_bin(value: float) -> None:
    place = int(bin_of([value])[0])
    low, high = edges()[place], edges()[place + 1]
    if place == ZERO_BIN:
        assert abs(value) < 2.0**-32
    elif value > 0:
        assert low <= value < high or math.isinf(high)
    else:
        assert low < value <= high


def test_bins_are_ordered_and_symmetric() -> None:
    assert len(edges()) == BINS + 1
    assert (np.diff(edges()[1:]) > 0).all()
    assert (np.diff(centers()) > 0).all()
    assert np.array_equal(bin_of([-1.0, 1.0]) - ZERO_BIN, [-33, 33])


def why_refused(batch: Batch) -> str:
    try:
        validate_batch(batch)
    except codec.WireError as error:
        return str(error)
    return ""


def test_of_a_sound_batch_and_its_neighbours_only_the_sound_one_is_accepted() -> None:
    step = Step(seq=1, time=1.0, step=0, scalars={"loss": math.nan})
    end = End(seq=2, time=1.0, step=0, status="finished")
    whole = batch_of(start(), step, end)
    sent = codec.encode_batch(whole)
    assert why_refused(whole) == why_refused(batch_of(first=7)) == ""
    assert codec.encode_batch(whole) == sent
    assert "expected 0" in why_refused(batch_of(step, end))
    assert "expected 1" in why_refused(batch_of(start(), end))
    assert "has no other" in why_refused(batch_of(start(7), step, first=7))


@pytest.mark.parametrize(
    ("records", "first", "message"),
    [
        ([Step(seq=0, time=1.0, step=0)], 0, "begins with one start"),
        ([start(), Step(seq=2, time=1.0, step=0)], 0, "sequence number 2; expected 1"),
        ([start(4)], 4, "has no other"),
        ([Step(seq=1, time=math.nan, step=0)], 1, "not a Unix time"),
        ([Step(seq=1, time=1e12, step=0)], 1, "not a Unix time"),
        ([Step(seq=1, time=1.0, step=-1)], 1, "Step -1 is out of range"),
        ([Step(seq=1, time=1.0, step=0, scalars={"": 1.0})], 1, "empty metric"),
        ([Step(seq=1, time=1.0, step=0, scalars={"x" * 600: 1.0})], 1, "600 characters"),
        ([Event(seq=1, time=1.0, step=0, kind="k", data={"n": 2**60})], 1, "more than 2"),
        (
            [
                Layout(
                    seq=1,
                    time=1.0,
                    step=0,
                    group=0,
                    kind="activation",
                    rows=[Row(name="a"), Row(name="a")],
                    columns=["mean"],
                )
            ],
            1,
            "each row once",
        ),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(
    records: list[Record], first: int, message: str
) -> None:
    with pytest.raises(codec.WireError, match=message):
        validate_batch(batch_of(*records, first=first))


@pytest.mark.parametrize("run", ["", "../x", "a/b", "x" * 65, ".hidden", "a..b"])
def test_ids_that_could_leave_a_folder_are_refused(run: str) -> None:
    batch = Batch(version=1, run=run, attempt="a", rank=0, first=0, records=[])
    with pytest.raises(codec.WireError, match="is no run id"):
        validate_batch(batch)
