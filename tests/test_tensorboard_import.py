"""Event files of the real SummaryWriter become runs: once, however often and however late they are imported."""

import math

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from trainvitals.app.store import Store
from trainvitals.app.tensorboard import ImportFailed, import_logs
from trainvitals.hooks.wire.bins import bin_of, edges


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "trainvitals.db") as opened:
        yield opened


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "logs"


@pytest.fixture
def take(store, logs):
    return lambda: list(import_logs(store, logs, "digits", 2e9))


def loss(step):
    return math.nan if step == 40 else 1 / (step + 1)


def write(folder, steps, **values):
    with SummaryWriter(folder) as writer:
        for step in steps:
            writer.add_scalar("loss", loss(step), step)
            writer.add_scalar("acc", step / 1000, step)
            for name, value in values.items():
                writer.add_histogram(name, value, step)


def test_scalars_arrive_with_their_steps(store, take, logs):
    write(logs / "one", range(2500))
    (found,) = take()
    assert (found.name, found.scalars) == ("one", 5000)
    run = store.run(found.run)
    assert (run.project, run.name, run.status_reported) == ("digits", "one", "finished")
    assert run.created < 2e9
    series = store.series(found.run, ["loss", "acc"], points=5000)
    assert series["loss"].steps.tolist() == list(range(2500))
    expected = np.array([loss(step) for step in range(2500)], np.float32)
    np.testing.assert_array_equal(series["loss"].last.astype(np.float32), expected)
    np.testing.assert_allclose(series["acc"].last, np.arange(2500) / 1000, rtol=1e-6)


def test_importing_again_stores_nothing(store, take, logs):
    write(logs, range(30))
    (found,) = take()
    before = store.next_seq(found.run, "import", 0)
    (again,) = take()
    assert (again.run, again.scalars) == (found.run, 0)
    assert store.next_seq(found.run, "import", 0) == before


def test_logs_that_grew_go_on_where_they_were(store, take, logs):
    writer = SummaryWriter(logs)
    run = None
    for first in (0, 7, 1200):
        for step in range(first, first + 1193 if first else 7):
            writer.add_scalar("loss", loss(step), step)
        writer.flush()
        (found,) = take()
        run = run or found.run
        assert found.run == run
    writer.close()
    steps = store.series(run, ["loss"], points=9999)["loss"].steps.tolist()
    assert steps == sorted({*range(7), *range(7, 1200), *range(1200, 2393)})


def test_a_second_file_of_the_folder_belongs_to_the_run(store, take, logs):
    write(logs, range(10))
    (first,) = take()
    write(logs, range(10, 20))
    (second,) = take()
    assert (second.run, second.scalars) == (first.run, 20)
    assert store.series(first.run, ["loss"])["loss"].steps.tolist() == list(range(20))


def test_each_folder_is_a_run(take, logs):
    write(logs / "a", range(3))
    write(logs / "deep" / "b", range(3))
    assert {(found.name, found.scalars) for found in take()} == {("a", 6), ("deep/b", 6)}


def test_histograms_land_in_the_bins_of_their_values(store, take, logs):
    values = torch.tensor(np.random.default_rng(1).normal(0, 3, 5000))
    write(logs, [5], weights=values, zeros=torch.zeros(50))
    (found,) = take()
    assert found.histograms == 2
    read = store.histograms(found.run, "logged", "weights")
    assert read.steps.tolist() == [5]
    assert read.counts.sum() == 5000
    exact = np.bincount(bin_of(values.numpy()), minlength=96)
    # TensorBoard's buckets are a tenth wide, so what lies near an edge may be in the next bin
    assert np.abs(read.counts[0] - exact).sum() < 0.15 * 5000
    assert edges()[np.nonzero(read.counts[0])[0].max()] <= values.max()
    zeros = store.histograms(found.run, "logged", "zeros")
    assert zeros.counts.sum() == 50


def test_hyperparameters_become_configuration(store, take, logs):
    with SummaryWriter(logs) as writer:
        writer.add_scalar("loss", 1.0, 0)
        writer.add_hparams({"lr": 0.1, "opt": "adam", "amsgrad": True}, {"best": 0.5})
    (found,) = take()
    assert store.run(found.run).config == {"lr": 0.1, "opt": "adam", "amsgrad": True}
    assert store.series(found.run, ["best"])["best"].last.tolist() == [0.5]


def test_what_has_no_place_is_counted(take, logs):
    with SummaryWriter(logs) as writer:
        writer.add_text("note", "hello", 0)
        writer.add_scalar("loss", 1.0, 0)
    (found,) = take()
    assert (dict(found.skipped), found.scalars) == ({"text": 1}, 1)


def test_a_file_that_is_cut_off_gives_what_is_whole(store, take, logs):
    write(logs, range(50))
    (file,) = logs.glob("*tfevents*")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    (found,) = take()
    assert 20 < found.scalars < 90
    file.write_bytes(data)
    (rest,) = take()
    assert found.scalars + rest.scalars == 100
    assert len(store.series(found.run, ["loss"])["loss"].steps) == 50


def test_a_folder_without_logs_is_an_error(take, logs):
    logs.mkdir()
    with pytest.raises(ImportFailed, match="no event files"):
        take()
