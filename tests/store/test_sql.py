"""The published SQL runs as it stands, with every tool it is published for, and gives what was stored."""

import json
import re
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import sqlite_utils

from trainvitals.app.store import Store, sql
from trainvitals.app.store.views import VIEWS
from trainvitals.hooks.wire.columns import MISSING_BITS

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "database.md"
EXAMPLES = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def database(tmp_path, made_run, fill):
    """A judged run that ended badly."""
    path = tmp_path / "trainvitals.db"
    fill(path, made_run("sick", steps=420, sick=True).end("failed", "out of memory"))
    return path


@pytest.fixture
def rows(database):
    def query(text):
        columns, found = sql.query(database, text)
        return [dict(zip(columns, row, strict=True)) for row in found]

    return query


@pytest.fixture
def tools(database):
    """sqlite-utils, with the functions that its plugin brings."""
    connection = sqlite3.connect(database)
    sql.prepare_connection(connection)
    yield sqlite_utils.Database(connection)
    connection.close()


def test_the_page_has_examples_of_every_view():
    assert len(EXAMPLES) >= 6
    assert all(any(view in text for text in EXAMPLES) for view in VIEWS)


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_published_example_finds_something(tools, text):
    assert list(tools.query(text))


def test_scalars_are_those_that_charts_show(rows, database):
    found = rows(
        "SELECT step, value FROM scalar_values WHERE run='sick' AND name='loss' ORDER BY step"
    )
    with Store.open(database) as store:
        series = store.series("sick", ["loss"], points=10_000)["loss"]
    assert [row["step"] for row in found] == series.steps.tolist()
    values = [np.nan if row["value"] is None else row["value"] for row in found]
    np.testing.assert_array_equal(values, series.last)


def test_statistics_are_those_that_charts_show(rows, database):
    query = "SELECT step, value FROM statistic_values WHERE name='head.fc1' AND statistic='std'"
    found = {row["step"]: row["value"] for row in rows(query)}
    with Store.open(database) as store:
        series = store.row("sick", "activation", "head.fc1", points=10_000)["std"]
    assert list(found) == series.steps.tolist()
    for step, value, bad in zip(series.steps, series.mean, series.nonfinite, strict=True):
        assert found[int(step)] is None if bad else found[int(step)] == value


def test_what_was_not_recorded_is_no_row(tmp_path, sender_to):
    values = np.array([[1, 2], [3, 4]], np.float32)
    values.view(np.uint32)[1, 0] = MISSING_BITS
    with Store.open(tmp_path / "a.db") as store:
        stream = sender_to(store).start().layout()
        for step in range(300):
            stream.sample(step, values)
        stream.send()
    _, found = sql.query(
        tmp_path / "a.db", "SELECT name, statistic, COUNT(*) FROM statistic_values GROUP BY 1, 2"
    )
    assert found == [("fc1", "rms", 300), ("fc1", "std", 300), ("fc2", "rms", 300)]


def test_one_name_reads_only_its_own_tiles(database):
    """The loops begin with the names, so a query of one layer unpacks no others."""
    unpacked = []
    connection = sqlite3.connect(database)
    sql.prepare_connection(connection)
    connection.create_function("tv_tile", 5, lambda *args: unpacked.append(args[2]) or "{}")
    connection.execute(
        "SELECT COUNT(*) FROM statistic_values WHERE name='head.fc1' AND statistic='std'"
    ).fetchall()
    connection.close()
    assert unpacked == []  # 210 samples: all in the tail


def test_the_functions_do_not_write(database):
    with pytest.raises(Exception, match="readonly"):
        sql.query(database, "DELETE FROM runs")


def test_the_plugins_are_declared_for_both_tools():
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points["datasette"] == points["sqlite_utils"] == {"trainvitals": sql.__name__}
    assert sql.prepare_connection.datasette_impl
    assert sql.prepare_connection.sqlite_utils_impl


@pytest.mark.slow
def test_datasette_shows_the_views(database, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "own.py").write_text("from trainvitals.app.store.sql import prepare_connection\n")
    query = (
        "/trainvitals.json?sql=select+count(*)+n+from+scalar_values+where+name='loss'&_shape=array"
    )
    command = [sys.executable, "-m", "datasette", str(database), "--plugins-dir", str(plugins)]
    run = subprocess.run([*command, "--get", query], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [{"n": 420}]
