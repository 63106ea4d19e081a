"""Databases of earlier releases, as they were written then (tests/store/data), open and upgrade with all they hold.

schema-1.db holds one run "old-1" of two attempts: steps 0 to 699, then 600 to 799 recorded anew. What was put in is
computed here again. What the second schema packed in another way is in test_repack.
"""

import math
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from trainvitals.app.diagnose import diagnose
from trainvitals.app.store import Store, upkeep
from trainvitals.app.store.migrations import MIGRATIONS

DATA = Path(__file__).parent / "data"
RELEASED = sorted(int(path.stem.split("-")[1]) for path in DATA.glob("schema-*.db"))


def loss(step, attempt):
    return {100: math.nan, 101: math.inf}.get(step, 1 / (step + 1) + attempt)


@pytest.fixture(params=RELEASED)
def old(request, tmp_path):
    """A copy of a stored database, and its schema version."""
    path = tmp_path / "old.db"
    shutil.copy(DATA / f"schema-{request.param}.db", path)
    return path, request.param


def schema(path):
    """The definition of every table, index and view, without what only lays out the text."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    columns = {
        row[1]: connection.execute(f"PRAGMA table_xinfo({row[1]})").fetchall()
        for row in rows
        if row[0] == "table"
    }
    connection.close()
    return {row[:3] for row in rows}, columns


def test_there_is_a_stored_database_of_the_first_schema():
    assert RELEASED[0] == 1


def test_an_old_database_gets_the_schema_of_a_new_one(old, tmp_path):
    path, version = old
    assert upkeep.version(path) == version
    Store.open(path).close()
    Store.open(tmp_path / "new.db").close()
    assert upkeep.version(path) == upkeep.version(tmp_path / "new.db") == len(MIGRATIONS)
    assert schema(path) == schema(tmp_path / "new.db")
    assert upkeep.check(path) == []


def test_an_old_database_reads_as_it_was_written(old):
    path, _ = old
    with Store.open(path) as store:
        (run,) = store.runs()
        assert (run.id, run.project, run.name) == ("old-1", "digits", "old run")
        assert run.config["lr"] == 0.5
        assert math.isnan(run.config["bad"])
        assert (run.tags, run.environment) == (["kept"], {"host": "box"})
        assert (run.attempts, run.last_step) == (["a1", "a2"], 799)
        assert run.status_reported == "finished"
        found = store.series("old-1", ["loss"], points=1000)["loss"]
        expected = [loss(s, 0) for s in range(600)] + [loss(s, 1) for s in range(600, 800)]
        assert found.steps.tolist() == list(range(800))
        np.testing.assert_array_equal(found.last, expected)
        assert found.nonfinite.sum() == 2
        (layout,) = store.layouts("old-1")
        assert [row.name for row in layout.rows] == ["fc1", "fc2", ""]
        matrix = store.matrix("old-1", "activation", "rms", buckets=1000)
        steps = np.arange(0, 800, 2)
        assert matrix.steps.tolist() == steps.tolist()
        expected = steps + np.arange(3)[:, None] / 10 + 0.01
        np.testing.assert_allclose(matrix.mean, expected, rtol=1e-6)
        shapes = store.histograms("old-1", "activation", "fc1")
        assert shapes.steps.tolist() == list(range(0, 800, 50))
        assert shapes.counts.argmax(axis=1).tolist() == [40 + s % 20 for s in range(0, 800, 50)]
        assert shapes.counts.max(axis=1).tolist() == [s + 1 for s in range(0, 800, 50)]
        (finding,) = store.findings("old-1")
        assert (finding.key, finding.layers) == ("loss-nan", ["fc1"])
        assert store.events("old-1")[-1].data == {"to": 0.25}
        (delivery,) = store.deliveries("old-1")
        assert (delivery.channel, delivery.state) == ("slack", "delivered")


def test_an_old_run_goes_on_where_it_was(old, sender_to):
    path, _ = old
    with Store.open(path) as store:
        later = sender_to(store, run="old-1", attempt="a3").start(name="old run")
        later.scalars(700, loss=7.0).send()
        found = store.series("old-1", ["loss"], points=1000)["loss"]
        assert found.steps[-1] == 700
        assert found.last[-1] == 7.0
        assert store.claim("me", 30, 2e9) == ["old-1"]


def test_an_old_run_is_judged(old):
    path, _ = old
    assert "nonfinite-loss" in [finding.rule for finding in diagnose(path)]


def test_an_old_file_shrinks_after_a_vacuum(old):
    path, _ = old
    with Store.open(path) as store:
        assert not store.info().shrinks
        store.vacuum()
        assert store.info().shrinks
        assert len(store.series("old-1", ["loss"], points=1000)["loss"].steps) == 800
