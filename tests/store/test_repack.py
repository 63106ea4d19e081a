"""A database of schema version 2, as the release before wrote it, opens with all that is in it."""

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
