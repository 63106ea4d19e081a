"""The Lightning callback and logger, under both names of the package."""

import importlib
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals.hooks as tv
from trainvitals.hooks.integrations.lightning import TrainVitals, TrainVitalsLogger
from trainvitals.hooks.spool import find_streams, read_meta, read_stream
from trainvitals.hooks.wire.records import Step
from trainvitals.hooks.wire.scalars import expand

BATCH = 8
PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def loader(batches=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH * batches, 5, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=BATCH)


def fit(module, *, package="lightning.pytorch", val=None, ckpt_path=None, batches=6, **options):
    """Train; the trainer that did it."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
        "log_every_n_steps": 1,
        "max_epochs": 1,
    }
    trainer = importlib.import_module(package).Trainer(**quiet | options)
    trainer.fit(module, loader(batches), val, ckpt_path=ckpt_path)
    return trainer


@pytest.fixture
def net():
    """Make a module of either package that keeps what it logs."""

    def make(package="lightning.pytorch", explode_at=None, error=None):
        base = importlib.import_module(package).LightningModule

        class Net(base):
            def __init__(self, width=7):
                super().__init__()
                self.save_hyperparameters()
                self.body = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 1))
                self.losses, self.validated, self.steps = [], [], []

            def training_step(self, batch, index):
                if explode_at is not None and index == explode_at:
                    raise error
                loss = nn.functional.mse_loss(self.body(batch[0]), batch[1])
                self.log("train/loss", loss)
                self.losses.append(loss.item())
                return loss

            def validation_step(self, batch, index):
                loss = nn.functional.mse_loss(self.body(batch[0]), batch[1])
                self.log("val/loss", loss)
                if not self.trainer.sanity_checking:
                    self.validated.append(loss.item())

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.01)

        torch.manual_seed(1)
        return Net()

    return make


@pytest.mark.parametrize("package", PACKAGES)
def test_the_callback_records_losses_layers_and_the_end_of_a_fit(package, net, dashboard):
    module = net(package)
    fit(module, package=package, callbacks=[TrainVitals(project="digits", interval=1)])
    seen = dashboard()
    run = seen.run()
    assert (run["project"], run["status"], run["last_step"]) == ("digits", "finished", 5)
    assert run["config"]["width"] == 7
    assert seen.series("train/loss") == pytest.approx(dict(enumerate(module.losses)))
    assert {"body.0", "body.1", "body.2"} <= set(seen.layers())
    assert set(seen.layers("parameter")) == {name for name, _ in module.named_parameters()}
    assert seen.matrix("activation", "std")["steps"] == list(range(6))
    assert tv.current_run().finished
    assert seen.problems() == []


def test_statistics_are_those_of_lightnings_own_gradients(net, dashboard):
    module = net()
    norms = []
    step = module.optimizer_step

    def noted(*args, **kwargs):
        step(*args, **kwargs)
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in module.parameters())))

    module.optimizer_step = noted
    fit(module, callbacks=[TrainVitals(interval=1)])
    assert list(dashboard().series("tv/grad_norm").values()) == pytest.approx(norms, rel=1e-4)


def test_validation_stands_at_the_last_step_before_it(net, dashboard):
    module = net()
    fit(
        module,
        val=loader(2, seed=3),
        val_check_interval=3,
        max_epochs=2,
        callbacks=[TrainVitals()],
    )
    means = [
        sum(pair) / 2 for pair in zip(module.validated[::2], module.validated[1::2], strict=True)
    ]
    seen = dashboard()
    assert seen.series("val/loss") == pytest.approx(dict(zip([2, 5, 8, 11], means, strict=True)))
    assert seen.series("train/loss") == pytest.approx(dict(enumerate(module.losses)))


def test_accumulated_batches_are_one_step(net, dashboard):
    module = net()
    fit(module, callbacks=[TrainVitals()], accumulate_grad_batches=3)
    seen = dashboard()
    assert seen.series("train/loss") == pytest.approx({0: module.losses[2], 1: module.losses[5]})
    assert seen.run()["last_step"] == 1


def test_values_of_an_epoch_stand_at_its_last_step(net, dashboard):
    module = net()
    module.on_train_epoch_end = lambda: module.log("late", 10.0 * (module.current_epoch + 1))
    log = module.log
    module.log = lambda name, value: log(name, value, on_step=name == "train/loss", on_epoch=True)
    fit(module, callbacks=[TrainVitals()], max_epochs=2)
    seen = dashboard()
    first, second = module.losses[:6], module.losses[6:]
    assert seen.series("train/loss_step") == pytest.approx(dict(enumerate(first + second)))
    assert seen.series("train/loss_epoch") == pytest.approx(
        {5: sum(first) / 6, 11: sum(second) / 6}
    )
    assert seen.series("late") == {5: 10.0, 11: 20.0}


def test_manual_optimization_with_two_optimizers_counts_the_steps_of_the_first(dashboard):
    base = importlib.import_module("lightning.pytorch").LightningModule

    class Two(base):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.left, self.right = nn.Linear(5, 1), nn.Linear(5, 1)
            self.losses = []

        def training_step(self, batch, index):
            for optimizer, part in zip(self.optimizers(), (self.left, self.right), strict=True):
                loss = nn.functional.mse_loss(part(batch[0]), batch[1])
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            self.log("loss", loss)
            self.losses.append(loss.item())

        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), lr=0.01) for part in (self.left, self.right)]

    module = Two()
    fit(module, callbacks=[TrainVitals(interval=1)])
    seen = dashboard()
    assert seen.series("loss") == pytest.approx(dict(enumerate(module.losses)))
    assert seen.run()["last_step"] == 5
    ratios = seen.matrix("parameter", "update_ratio")
    moved = [row for row, values in zip(ratios["rows"], ratios["mean"], strict=True) if values[0]]
    assert {"left.weight", "right.weight"} <= set(moved)


def test_a_resumed_fit_goes_on_with_the_steps_of_the_first_of_uneven_optimizers(
    dashboard, tmp_path
):
    base = importlib.import_module("lightning.pytorch").LightningModule

    class Uneven(base):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.seldom, self.often = nn.Linear(5, 1), nn.Linear(5, 1)

        def training_step(self, batch, index):
            both = zip(self.optimizers(), (self.seldom, self.often), strict=True)
            for optimizer, part in list(both)[index % 3 != 0 :]:
                optimizer.zero_grad()
                self.manual_backward(nn.functional.mse_loss(part(batch[0]), batch[1]))
                optimizer.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(p.parameters(), lr=0.01) for p in (self.seldom, self.often)]

    trainer = fit(Uneven(), callbacks=[TrainVitals(id="long", interval=1)])
    trainer.save_checkpoint(tmp_path / "six.ckpt")
    again = {"max_epochs": 2, "ckpt_path": tmp_path / "six.ckpt"}
    fit(Uneven(), callbacks=[TrainVitals(id="long", interval=1)], **again)
    assert list(dashboard().series("tv/grad_norm")) == [0, 1, 2, 3]  # two of six batches an epoch


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("out of luck"), "failed", "RuntimeError: out of luck"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
    ],
)
@pytest.mark.parametrize("part", [TrainVitals, TrainVitalsLogger])
def test_a_fit_that_breaks_off_says_how(part, error, status, message, net, dashboard):
    mine = {"callbacks": [part()]} if part is TrainVitals else {"logger": part()}
    with pytest.raises((RuntimeError, SystemExit)):
        fit(net(explode_at=3, error=error), **mine)
    run = dashboard().run()
    assert (run["status"], run["end_message"]) == (status, message)


def test_a_run_that_was_open_before_stays_open(net, dashboard):
    with tv.init(project="mine", config={"seed": 1}) as run:
        fit(net(), callbacks=[TrainVitals(project="other")])
        assert not run.finished
        assert not run.watching
        tv.log({"after": 1.0}, step=6)
    seen = dashboard().run()
    assert (seen["project"], seen["status"]) == ("mine", "finished")
    assert seen["config"] == {"seed": 1, "width": 7}


def test_the_logger_records_what_loggers_get(net, dashboard):
    module = net()
    logger = TrainVitalsLogger(project="digits", id="run-7")
    trainer = fit(module, logger=logger, val=loader(2, seed=3))
    assert (logger.name, logger.version) == ("digits", "run-7")
    seen = dashboard()
    run = seen.run()
    assert (run["id"], run["status"], run["config"]["width"]) == ("run-7", "finished", 7)
    assert seen.series("train/loss") == pytest.approx(dict(enumerate(module.losses)))
    assert seen.series("val/loss") == pytest.approx({5: sum(module.validated) / 2})
    trainer.validate(module, loader(2, seed=3), verbose=False)
    again = dashboard()
    assert again.run()["status"] == "finished"
    assert len(again.run()["attempts"]) == 2
    assert again.series("train/loss") == pytest.approx(dict(enumerate(module.losses)))


def test_callback_and_logger_share_a_run_and_record_nothing_twice(net, dashboard):
    module = net()
    fit(module, callbacks=[TrainVitals(interval=1)], logger=TrainVitalsLogger(id="both"))
    seen = dashboard()
    assert seen.runs() == ["both"]
    assert seen.run()["status"] == "finished"
    read = seen.get("/both/series?names=train/loss")["series"]["train/loss"]
    assert read["last"] == pytest.approx(module.losses)
    assert "body.0" in seen.layers()


def test_a_resumed_fit_goes_on_counting(net, dashboard, tmp_path):
    module = net()
    trainer = fit(module, callbacks=[TrainVitals(id="long", interval=1)])
    trainer.save_checkpoint(tmp_path / "six.ckpt")
    resumed = net()
    fit(
        resumed,
        callbacks=[TrainVitals(id="long", interval=1)],
        max_epochs=2,
        ckpt_path=tmp_path / "six.ckpt",
    )
    seen = dashboard()
    assert len(seen.run()["attempts"]) == 2
    expected = dict(enumerate(module.losses + resumed.losses))
    assert seen.series("train/loss") == pytest.approx(expected)
    assert list(seen.series("tv/grad_norm")) == list(range(12))


def test_weights_are_the_same_with_and_without(net):
    plain, watched = net(), net()
    fit(plain)
    fit(watched, callbacks=[TrainVitals(interval=1)])
    for left, right in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(left, right)


def test_other_ranks_watch_but_log_nothing_where_all_record(net, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TRAINVITALS_RUN_ID", "all-ranks")
    fit(net(), callbacks=[TrainVitals(interval=1)])
    (folder,) = find_streams(tmp_path / ".trainvitals")
    assert (read_meta(folder).run, read_meta(folder).rank) == ("all-ranks", 1)
    records = [step for record in read_stream(folder) for step in expand(record)]
    steps = [record for record in records if isinstance(record, Step)]
    assert not any(record.samples for record in steps)  # rank 0 speaks, this one only watches
    assert not any("train/loss" in record.scalars for record in steps)


def test_other_ranks_are_silent(net, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    callback = TrainVitals()
    module = net()
    callback.on_fit_start(None, module)
    assert callback.run is None
    assert not (tmp_path / ".trainvitals").exists()


SCRIPT = """
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainvitals.hooks.integrations.lightning import TrainVitals, TrainVitalsLogger

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 1)
    def training_step(self, batch, index):
        loss = self.body(batch[0]).square().mean()
        self.log("train/loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

torch.manual_seed(0)
data = DataLoader(TensorDataset(torch.randn(32, 4)), batch_size=4)
trainer = Trainer(accelerator="cpu", strategy="ddp", devices=2, max_epochs=1, log_every_n_steps=1,
    enable_checkpointing=False, enable_progress_bar=False, logger=TrainVitalsLogger(project="two"),
    callbacks=[TrainVitals(project="two", interval=1)])
trainer.fit(Net(), data)
"""


@pytest.mark.slow
def test_of_two_processes_only_the_first_speaks(dashboard, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "records nothing" not in run.stderr
    streams = find_streams(tmp_path / ".trainvitals")
    assert [read_meta(folder).rank for folder in streams] == [0]
    seen = dashboard()
    assert seen.run()["status"] == "finished"
    assert list(seen.series("train/loss")) == [0, 1, 2, 3]
    assert "body" in seen.layers()
