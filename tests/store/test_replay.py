"""Records come back as they were sent."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainvitals.app.store import Store
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.records import End, Event, Histograms, Step


def encoded(records):
    """As compared: NaN equals itself, histograms are not replayed."""
    return [
        msgspec.msgpack.encode(
            msgspec.structs.replace(record, histograms=[]) if isinstance(record, Step) else record
        )
        for record in records
    ]


def replayed(store, limit=2000):
    """All records by stream key, read a page at a time."""
    cursor, found = {}, {}
    while page := store.replay("run-1", cursor, limit):
        assert len(page) <= limit
        for stream, record in page:
            assert record.seq == cursor.get(stream.key, 0)
            cursor[stream.key] = record.seq + 1
            found.setdefault(stream.key, []).append(record)
    return found


def fill(stream, count, seed=0):
    """Records of all sorts; values are random bits, so any NaN among them."""
    random = np.random.default_rng(seed)
    stream.start(config={"b": 1, "a": [1.5, None]}).layout(["fc1"])
    rows = 1
    for step in range(count):
        if step == count // 3:
            rows = 3
            stream.layout(["fc0", "fc1", "fc2"])
        values = random.integers(0, 2**32, (rows, 2), np.uint32).view(np.float32)
        histograms = Histograms(
            group=0, kind="activation", counts=pack_counts(np.ones((rows, 96), int))
        )
        stream.sample(
            step, values, histograms=[histograms], scalars={"z": float(step), "a": float("nan")}
        )
        if step % 50 == 0:
            stream.scalars(step, other=1.0).make(Event, step=step, kind="lr", data={"x": step})
    return stream.make(End, step=count, status="finished")


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    count=st.integers(1, 1100),
    batches=st.lists(st.integers(1, 500), min_size=1, max_size=5),
    limit=st.sampled_from([37, 2000]),
)
def test_records_come_back_whatever_the_batches(tmp_path_factory, sender_to, count, batches, limit):
    with Store.open(tmp_path_factory.mktemp("db") / "t.db") as store:
        streams = [
            fill(sender_to(store, attempt="a1"), count),
            fill(sender_to(store, attempt="a1", rank=1), count // 5, 1),
            fill(sender_to(store, attempt="a2"), count // 2, 2),
        ]
        for stream in streams:
            turn = 0
            while stream.sent < len(stream.records):
                stream.send(last=stream.sent + batches[turn % len(batches)])
                turn += 1
        found = replayed(store, limit)
        assert list(found) == ["a1/0", "a1/1", "a2/0"]
        for stream, key in zip(streams, found, strict=True):
            assert encoded(found[key]) == encoded(stream.records)


@pytest.mark.parametrize("size", [1, 300])
def test_replay_goes_on_from_its_cursor(store, sender, size):
    stream = fill(sender(), 600)
    while stream.sent < len(stream.records):
        stream.send(last=stream.sent + size)
    page = store.replay("run-1", {"a1/0": 411}, 10)
    assert [record.seq for _, record in page] == list(range(411, 421))
    assert store.replay("run-1", {"a1/0": len(stream.records)}) == []
