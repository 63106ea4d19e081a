"""The benchmark of the store, on little data: what it fills is whole, what it asks has answers. No timings."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.store import data, peers, queries, report
from benchmarks.store.data import Size
from benchmarks.store.fill import fill
from benchmarks.store.fill import filled as fill_once
from benchmarks.store.progress import Progress
from benchmarks.store.queries import Times
from benchmarks.store.report import Measured
from trainvitals.app.store import Store
from trainvitals.app.store.audit import audit

SIZE = Size(layers=17, statistics=5, steps=600, histogram_steps=200)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("bench") / "t.db", SIZE, 23, Progress())


def test_the_store_holds_the_made_up_values(filled):
    made = np.concatenate(list(data.values(SIZE)))
    with Store.open(filled.path) as store:
        matrix = store.matrix("main", "activation", data.statistic(2), buckets=600)
        assert np.array_equal(matrix.mean, made[:, :, 2].T)
        assert len(store.runs()) == 23
        assert len(store.histograms("main", "activation", data.layer(16), times=300).steps) == 200
        with store._database.read() as connection:
            assert audit(connection, "main") == []


def test_every_query_has_an_answer_of_its_size(filled):
    with Store.open(filled.path) as store:
        answers = {name: query(store) for name, query in queries.QUERIES.items()}
    scalar, heatmap, row, histograms, latest, runs, several = answers.values()
    assert len(scalar["train/loss"].steps) == 600
    assert heatmap.mean.shape == (17, 300)
    assert [len(series.steps) for series in row.values()] == [600] * 5
    assert histograms.counts.sum(axis=1) == pytest.approx(np.full(200, 1e5), rel=0.02)
    assert latest[1] == 599
    assert len(runs) == 23
    assert [len(found["train/loss"].steps) for found in several] == [600] * 20


def test_the_noise_is_not_compressed_to_nothing(filled):
    with Store.open(filled.path) as store, store._database.read() as connection:
        (size,) = connection.execute(
            "SELECT SUM(LENGTH(body)) FROM tiles JOIN groups g ON g.key = grp "
            "WHERE level = 0 AND kind = 'activation'"
        ).fetchone()
    assert 2.5 < size / (512 * 17 * 5) < 4  # float32, of the 512 steps that are in blocks
    assert filled.layer_step_bytes > 5 * 2.5
    assert 20 < filled.histogram_bytes < 200


def test_peers_hold_what_they_were_given(tmp_path):
    size = Size(layers=3, statistics=5, steps=40, histogram_steps=0)
    peer = peers.rows(tmp_path, size, Progress())
    assert peer.layer_step_bytes > 5 * 8
    assert peer.rate > 0


def test_the_report_says_what_holds_and_what_does_not(filled):
    quick, slow = Times(1.0, 2.0, 3.0, 9), Times(100.0, 200.0, 3.0, 9)
    names = list(queries.QUERIES)
    long = dict.fromkeys(names, quick) | {names[1]: slow}
    measured = Measured(filled, filled, long, dict.fromkeys(names, quick), [])
    parts = [
        report.head(filled, filled),
        report.charts(long, measured.short_times),
        report.sizes(measured),
    ]
    lines = "\n".join(parts).splitlines()
    assert [line.split()[-1] for line in lines if line.strip().startswith(tuple(names))] == [
        "yes",
        "NO",
        *["yes"] * 5,
    ]
    assert json.loads(report.as_json(measured))["long_times"][names[1]]["p50"] == 100.0
    assert math.isclose(filled.rate * filled.append_seconds, 17 * 600)


def test_a_filled_store_is_asked_again_unless_another_size_is_wanted(tmp_path):
    path, size = tmp_path / "t.db", Size(layers=2, statistics=3, steps=300, histogram_steps=0)
    first = fill_once(path, size, 3, Progress())
    made = path.stat().st_ino
    assert fill_once(path, size, 3, Progress()) == first
    assert path.stat().st_ino == made
    other = Size(layers=2, statistics=3, steps=310, histogram_steps=0)
    assert fill_once(path, other, 3, Progress()).size == other
    with Store.open(path) as store:
        assert store.latest("main", "activation")[1] == 309


@pytest.mark.slow
def test_several_stores_are_asked_in_turn(filled, capfd):
    path = Path(filled.path)
    first, second = queries.measure([path, path], repeats=3, cold=1, progress=Progress())
    assert list(first) == list(second) == list(queries.QUERIES)
    for times in [*first.values(), *second.values()]:
        assert 0 < times.p50 <= times.p99
        assert times.cold > 0
    assert [times.buckets for times in first.values()] == [600, 300, 600, 200, 0, 0, 600]
    assert "charts: 100%" in capfd.readouterr().err
