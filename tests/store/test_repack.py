"""Databases of schema versions 2 and 7, as they were written then, open with all that is in them."""

from pathlib import Path

import numpy as np
import pytest
import zstandard

from trainvitals.app.store import Store
from trainvitals.app.store.audit import audit
from trainvitals.hooks.wire.codec import unpack_floats
from trainvitals.hooks.wire.records import Step

STORED = Path(__file__).parent / "data" / "schema-2.db.zst"
"""One run of 2,500 steps, 11 layers, two statistics: the sine of the place of the value plus the step."""
STEPS = 2500


@pytest.fixture
def opened(tmp_path):
    path = tmp_path / "t.db"
    path.write_bytes(zstandard.ZstdDecompressor().decompress(STORED.read_bytes()))
    with Store.open(path) as store:
        yield store


def sample(step):
    values = np.sin(np.arange(22).reshape(11, 2) + step).astype(np.float32)
    if step % 100 == 7:
        values[3, 1] = np.nan
    return values


def test_nothing_is_wrong_in_it(opened):
    with opened._database.read() as connection:
        assert audit(connection, "run-1") == []


def test_every_value_is_there(opened):
    loss = opened.series("run-1", ["loss"], points=STEPS)["loss"]
    assert loss.last.tolist() == [1 / (step + 1) for step in range(STEPS)]
    matrix = opened.matrix("run-1", "activation", "rms", buckets=STEPS)
    wanted = np.stack([sample(step)[:, 1] for step in range(STEPS)], axis=1)
    assert np.array_equal(matrix.mean, wanted, equal_nan=True)
    records = [record for _, record in opened.replay("run-1", {}, 10**6)]
    steps = [record for record in records if isinstance(record, Step)]
    assert [record.step for record in steps] == list(range(STEPS))
    for record in steps[::97]:
        found = unpack_floats(record.samples[0].values, 11, 2)
        assert np.array_equal(found, sample(record.step), equal_nan=True)


def test_few_buckets_say_what_many_say(opened):
    few = opened.matrix("run-1", "activation", "rms", buckets=40)
    assert 20 <= len(few.steps) <= 40
    whole = np.stack([sample(step)[:, 1] for step in range(STEPS)], axis=1)
    for index, step in enumerate(few.steps):
        after = few.steps[index + 1] if index + 1 < len(few.steps) else STEPS
        assert np.array_equal(few.max[:, index], np.nanmax(whole[:, step:after], axis=1))
        assert few.nonfinite[3, index] == np.isnan(whole[3, step:after]).sum()


@pytest.fixture
def opened_seven(tmp_path):
    """8,500 steps of three layers, enough for a block of level 2: (7 * step + layer) % 101."""
    path = tmp_path / "t.db"
    packed = STORED.with_name("schema-7.db.zst").read_bytes()
    path.write_bytes(zstandard.ZstdDecompressor().decompress(packed))
    with Store.open(path) as store:
        yield store


def test_a_pyramid_of_schema_7_is_summed_up_anew(opened_seven):
    with opened_seven._database.read() as connection:
        assert audit(connection, "run-1") == []
    few = opened_seven.matrix("run-1", "activation", "std", buckets=40)
    values = (7 * np.arange(8500) + np.arange(3)[:, None]) % 101.0
    values[2, 7::1000] = np.nan
    for index, step in enumerate(few.steps):
        part = values[:, step : few.steps[index + 1] if index + 1 < len(few.steps) else 8500]
        assert np.array_equal(few.max[:, index], np.nanmax(part, axis=1))
        assert few.nonfinite[:, index].tolist() == np.isnan(part).sum(axis=1).tolist()


def test_histograms_of_schema_7_are_read(opened_seven):
    found = opened_seven.histograms("run-1", "weight", "fc1")
    assert found.steps.tolist() == list(range(0, 8500, 850))
    places = (found.counts.argmax(axis=1), found.counts.max(axis=1))
    assert places[0].tolist() == [1 + number for number in range(10)]
    assert places[1].tolist() == [1 + step for step in range(0, 8500, 850)]
