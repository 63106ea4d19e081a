"""The stand-in for TensorBoard's SummaryWriter."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter as Original

import trainvitals.hooks as tv
from trainvitals.hooks.integrations.tensorboard import SummaryWriter
from trainvitals.hooks.wire.bins import bin_of


def histogram(seen, tag):
    """Counts per step and bin as the server has them, shape `(steps, bins)`, with the steps."""
    read = seen.store.histograms(seen.run()["id"], "logged", tag, start=None, stop=None, times=100)
    return read.steps.tolist(), read.counts


@pytest.mark.parametrize(
    "name", ["add_scalar", "add_scalars", "add_histogram", "add_hparams", "close", "flush"]
)
def test_methods_take_the_arguments_of_the_original(name):
    theirs = inspect.signature(getattr(Original, name)).parameters
    ours = inspect.signature(getattr(SummaryWriter, name)).parameters
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


def test_scalars_keep_their_tags_steps_and_nan(dashboard):
    with SummaryWriter("runs/baseline", project="digits") as writer:
        for step in (0, 5, 9):
            writer.add_scalar("Loss/train", torch.tensor(1.0 / (1 + step)), step, walltime=1e9)
        writer.add_scalar("Loss/train", math.nan, 12)
        writer.add_scalars("accuracy", {"top1": 0.5, "top5": np.float32(0.75)}, 9)
    seen = dashboard()
    run = seen.run()
    assert (run["project"], run["name"], run["status"]) == ("digits", "baseline", "finished")
    series = seen.get(f"/{run['id']}/series?names=Loss/train")["series"]["Loss/train"]
    assert series["steps"] == [0, 5, 9, 12]
    assert series["last"][:3] == pytest.approx([1.0, 1 / 6, 0.1])
    assert series["nonfinite"] == [0, 0, 0, 1]
    assert seen.series("accuracy/top1") == {9: 0.5}
    assert seen.series("accuracy/top5") == {9: 0.75}


def test_histograms_reach_the_dashboard_with_the_right_counts(dashboard):
    rng = np.random.default_rng(0)
    weights = {step: rng.normal(0, 0.1, 500) for step in (0, 10, 20)}
    with SummaryWriter() as writer:
        for step, values in weights.items():
            writer.add_histogram("fc1/weight", values, step)
            writer.add_histogram("fc1/grad", torch.tensor(values[:50] * 1e-3), step)
            if step == 20:
                writer.add_histogram("late", [0.0, 0.0, 3.0], step)
    seen = dashboard()
    steps, counts = histogram(seen, "fc1/weight")
    assert steps == [0, 10, 20]
    for row, values in zip(counts, weights.values(), strict=True):
        expected = np.bincount(bin_of(values.astype(np.float32)), minlength=96)
        assert row.tolist() == expected.tolist()
    steps, counts = histogram(seen, "late")
    assert steps == [20]
    assert counts[0, bin_of(0.0)] == 2
    assert counts[0, bin_of(3.0)] == 1
    charts = seen.figures()
    assert charts["histogram/fc1/grad"]["title"] == "fc1/grad"
    assert charts["histogram/fc1/grad"]["data"][0]["type"] == "heatmap"


def test_logged_histograms_are_no_layers_and_no_rule_judges_them(dashboard):
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with tv.init(project="both"):
        tv.watch(model, optimizer, interval=1)
        writer = SummaryWriter()
        for _ in range(30):
            loss = model(torch.ones(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_histogram("dead", torch.zeros(100))
            writer.add_histogram("wild", torch.tensor([1e30, -1e30, math.nan]))
        writer.close()
    seen = dashboard()
    run = seen.run()
    assert run["status"] == "finished"
    vitals = seen.get(f"/{run['id']}/figures/vitals")
    assert [row["name"] for row in vitals["layout"]["meta"]["rows"]] == [""]
    assert not [item for item in seen.findings() if {"dead", "wild"} & set(item["layers"])]
    assert histogram(seen, "dead")[0] == list(range(30))
    page = seen.client.get(f"/runs/{run['id']}")
    assert page.status_code == 200


def test_what_cannot_be_recorded_is_said_once(capsys, dashboard):
    with SummaryWriter() as writer:
        for step in range(3):
            writer.add_text("note", "hello", step)
            writer.add_image("picture", np.zeros((3, 4, 4)), step)
        writer.add_graph(torch.nn.Linear(1, 1), torch.ones(1, 1))
        writer.add_scalar("loss", 1.0, 0)
        writer.flush()
    said = capsys.readouterr().err
    for name in ("add_text", "add_image", "add_graph"):
        assert said.count(f"SummaryWriter.{name} is not recorded") == 1
    assert dashboard().run()["status"] == "finished"
    with pytest.raises(AttributeError, match="nonsense"):
        writer.nonsense()


def test_attributes_that_name_the_settings_are_those_of_the_original(tmp_path):
    given = {"log_dir": str(tmp_path / "runs"), "purge_step": 7, "filename_suffix": ".x"}
    with SummaryWriter(**given) as ours, Original(**given) as theirs:
        for name in ("log_dir", "purge_step", "max_queue", "flush_secs", "filename_suffix"):
            assert getattr(ours, name) == getattr(theirs, name)


def test_every_method_of_the_original_is_there():
    writer = SummaryWriter()
    for name in dir(Original):
        if not name.startswith("_") and name != "add_hparams":
            assert callable(getattr(writer, name))
    writer.close()


def test_hyperparameters_are_configuration(dashboard):
    with SummaryWriter() as writer:
        writer.add_scalar("loss", 1.0, 3)
        writer.add_hparams({"lr": 0.1, "depth": 3}, {"hparam/accuracy": 0.9})
    seen = dashboard()
    assert seen.run()["config"] == {"lr": 0.1, "depth": 3}
    assert seen.series("hparam/accuracy") == {3: 0.9}


def test_writers_share_a_run_that_the_last_one_ends(dashboard):
    train, val = SummaryWriter("runs/train"), SummaryWriter("runs/val")
    train.add_scalar("train/loss", 1.0, 0)
    train.close()
    val.add_scalar("val/loss", 2.0, 0)
    assert not tv.current_run().finished
    val.close()
    seen = dashboard()
    assert seen.run()["status"] == "finished"
    assert (seen.series("train/loss"), seen.series("val/loss")) == ({0: 1.0}, {0: 2.0})


def test_a_writer_that_was_closed_goes_on_when_it_is_used(dashboard):
    writer = SummaryWriter("runs/train")
    writer.add_scalar("loss", 1.0, 0)
    writer.close()
    assert tv.current_run().finished
    writer.add_scalar("loss", 2.0, 1)
    writer.add_histogram("weights", [1.0, 2.0], 1)
    writer.close()
    seen = dashboard()
    assert seen.run()["status"] == "finished"
    assert seen.series("loss") == {0: 1.0, 1: 2.0}
    assert histogram(seen, "weights")[0] == [1]


def test_an_exception_in_the_block_makes_the_run_failed(dashboard):
    with pytest.raises(RuntimeError), SummaryWriter() as writer:
        writer.add_scalar("loss", 1.0, 0)
        raise RuntimeError("out of luck")
    run = dashboard().run()
    assert (run["status"], run["end_message"]) == ("failed", "RuntimeError: out of luck")
