"""Scalars of many steps in one record are stored as if each step had come in its own."""

import math

import pytest

from trainvitals.app.store import InvalidRecord, Store
from trainvitals.hooks.wire.records import End, Scalars
from trainvitals.hooks.wire.scalars import expand, pack

ROWS = [
    (
        step,
        ("loss", "acc") if step % 7 == 0 else ("loss",),
        [1.0 / (step + 1), 0.5][: 1 + (step % 7 == 0)],
    )
    for step in range(700)
] + [(699, ("late",), [math.nan]), (3, ("loss",), [9.0])]  # a step again, and one back


def packed(stream, size):
    """`ROWS` in records of `size` rows."""
    stream.start()
    for begin in range(0, len(ROWS), size):
        stream.records.append(pack(ROWS[begin : begin + size], 1e9, len(stream.records)))
    return stream.make(End, step=699, status="finished")


def plain(stream):
    stream.start()
    for step, names, values in ROWS:
        stream.scalars(step, **dict(zip(names, values, strict=True)))
    return stream.make(End, step=699, status="finished")


def read(store):
    found = store.series("run-1", ["loss", "acc", "late"], points=2000)
    return {
        name: [
            repr(getattr(series, field).tolist())
            for field in ("steps", "min", "max", "last", "nonfinite")
        ]
        for name, series in found.items()
    }


@pytest.mark.parametrize("size", [2, 100, 256])
def test_charts_show_the_same(tmp_path, sender_to, size):
    with Store.open(tmp_path / "packed.db") as one, Store.open(tmp_path / "plain.db") as other:
        packed(sender_to(one), size).send()
        plain(sender_to(other)).send()
        assert one.scalar_names("run-1") == other.scalar_names("run-1") == ["loss", "acc", "late"]
        assert one.run("run-1").last_step == 699
        assert read(one) == read(other)
        assert len(read(one)["loss"][0]) > 700


def test_replay_gives_the_records_back_and_counts_their_steps(store, sender):
    stream = packed(sender(), 100)
    stream.send()
    cursor, found, pages = {}, [], []
    while page := store.replay("run-1", cursor, 150):
        pages.append(sum(len(list(expand(record))) for _, record in page))
        for origin, record in page:
            cursor[origin.key] = record.seq + 1
            found.append(record)
    assert len(found) == len(stream.records)
    assert all(isinstance(record, Scalars) for record in found[1:-1])
    assert [repr(record) for record in found] == [repr(record) for record in stream.records]
    assert max(pages) < 150 + 100
    assert sum(pages) == len(ROWS) + 2


def test_other_ranks_are_kept_for_replay_only(store, sender):
    plain(sender()).send()
    other = packed(sender(rank=1), 256)
    other.send()
    found = [record for origin, record in store.replay("run-1", {}, 10**6) if origin.rank == 1]
    assert [repr(record) for record in found] == [repr(record) for record in other.records]
    assert len(store.series("run-1", ["loss"], points=2000)["loss"].steps) == 700


def test_parts_that_do_not_fit_leave_everything_as_it_was(store, sender):
    stream = sender().start()
    stream.send()
    stream.make(Scalars, names=[["loss"]], steps=bytes(16), values=bytes(8))
    with pytest.raises(InvalidRecord, match="Record 1: 2 rows of scalars do not fit 8 bytes"):
        stream.send()
    assert store.next_seq("run-1", "a1", 0) == 1
