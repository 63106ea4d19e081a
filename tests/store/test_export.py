"""Runs as rows: CSV, JSON lines and Parquet, compared with what was put in."""

import csv
import io
import json
import math

import numpy as np
import pyarrow.parquet
import pytest

from trainvitals.app.export import FORMATS, encode
from trainvitals.app.store import export as tables
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.columns import MISSING_BITS
from trainvitals.hooks.wire.records import Event, Histograms, Step

STEPS = 600
AGAIN = 550
"""The first step that the second attempt records anew."""


def loss(step, attempt):
    return {7: math.nan, 8: -math.inf}.get(step, step / 8 + attempt)


def cells(step, rows=10):
    values = np.array([[step + row / 8, -step] for row in range(rows)], np.float32)
    values.view(np.uint32)[3, 1] = MISSING_BITS
    return values


@pytest.fixture
def run(sender, store):
    """600 steps of ten layers, the last fifty of them again in a second attempt: blocks and a tail."""
    names = [f"fc{number}" for number in range(10)]
    for number, steps in enumerate((range(STEPS), range(AGAIN, STEPS))):
        stream = sender(attempt=f"a{number}").start().layout(names)
        for step in steps:
            scalars = {"loss": loss(step, number)} | ({"val": step} if step % 100 == 0 else {})
            stream.sample(step, cells(step), scalars=scalars)
        counts = np.zeros((10, 96), int)
        counts[2, 50], counts[2, 51], counts[9, 0] = 5, 6, 7
        packed = [Histograms(group=0, kind="activation", counts=pack_counts(counts))]
        stream.make(Step, step=steps[-1], histograms=packed)
        stream.make(Event, step=steps[-1], kind="lr", layer="", message='a "b", c', data={"to": 1})
        for first in range(0, len(stream.records), 70):
            stream.send(first, min(first + 70, len(stream.records)))
    return "run-1"


@pytest.fixture
def read(store, run):
    """The rows of an export as dictionaries of Python values, None for nothing."""

    def parse(what, form):
        data = b"".join(encode(store.export(run, what), form))
        if form == "csv":
            rows = csv.DictReader(io.StringIO(data.decode()))
            return [{key: value or None for key, value in row.items()} for row in rows]
        if form == "jsonl":
            return [json.loads(line) for line in data.splitlines()]
        return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()

    return parse


@pytest.mark.parametrize("form", FORMATS)
def test_every_scalar_is_a_row(read, form):
    rows = [row for row in read("scalars", form) if row["name"] == "loss"]
    expected = [("a0", s, loss(s, 0), s >= AGAIN) for s in range(STEPS)]
    expected += [("a1", s, loss(s, 1), False) for s in range(AGAIN, STEPS)]
    assert [(row["attempt"], int(row["step"])) for row in rows] == [e[:2] for e in expected]
    values = [float(row["value"]) for row in rows]
    np.testing.assert_array_equal(values, [e[2] for e in expected])
    flags = [str(row["superseded"]).lower() == "true" for row in rows]
    assert flags == [e[3] for e in expected]


@pytest.mark.parametrize("form", FORMATS)
def test_statistics_have_a_column_each_and_nothing_where_nothing_was_recorded(read, form):
    rows = read("activations", form)
    assert len(rows) == 10 * (STEPS + STEPS - AGAIN)
    assert list(rows[0]) == ["attempt", "step", "superseded", "name", "std", "rms"]
    own = {(r["attempt"], int(r["step"]), r["name"]): (r["std"], r["rms"]) for r in rows}
    for attempt, step in (("a0", 0), ("a0", 255), ("a0", 256), ("a0", 599), ("a1", 599)):
        for line in range(10):
            std, rms = own[attempt, step, f"fc{line}"]
            assert float(std) == step + line / 8
            assert rms is None if line == 3 else float(rms) == -step


def test_histograms_are_their_bars(read):
    rows = read("histograms", "jsonl")
    first = [row for row in rows if row["attempt"] == "a0"]
    bars = [(row["name"], row["count"], row["low"], row["high"]) for row in first]
    small = 2.0**-31
    assert bars[0] == ("fc2", 5, small, 2 * small)
    assert bars[1] == ("fc2", 6, 2 * small, 4 * small)
    assert bars[2][:3] == ("fc9", 7, "-inf")
    assert {row["step"] for row in rows} == {STEPS - 1}


@pytest.mark.parametrize("form", FORMATS)
def test_events_keep_quotes_and_data(read, form):
    (first, second) = read("events", form)
    assert (first["message"], second["attempt"]) == ('a "b", c', "a1")
    data = first["data"]
    assert (json.loads(data) if isinstance(data, str) else data) == {"to": 1}


@pytest.mark.parametrize("what", tables.WHATS)
@pytest.mark.parametrize("form", FORMATS)
def test_a_run_without_any_has_a_head_and_no_row(store, sender, form, what):
    sender(run="empty").start().send()
    data = b"".join(encode(store.export("empty", what), form))
    if form == "csv":
        assert data.count(b"\n") == 1
    elif form == "jsonl":
        assert data == b""
    else:
        assert pyarrow.parquet.read_table(io.BytesIO(data)).num_rows == 0


def test_a_long_run_is_read_part_by_part(store, run):
    sizes = [len(rows) for rows in store.export(run, "activations").parts]
    assert max(sizes) <= 256 * 10
    assert sum(sizes) == 10 * (STEPS + STEPS - AGAIN)


def test_what_comes_in_meanwhile_doubles_nothing(store, sender, run):
    parts = store.export(run, "scalars").parts
    rows = next(parts)
    late = sender(attempt="a2").start()
    late.scalars(STEPS, loss=1.0).send()
    rows += [row for part in parts for row in part]
    own = [row[:2] for row in rows if row[3] == "loss"]
    assert len(own) == len(set(own)) >= STEPS + STEPS - AGAIN
