"""A finding stops other people's loops by their own flags."""

import importlib

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import trainvitals.hooks as tv

pytestmark = pytest.mark.slow

BATCH, STEPS, BROKEN = 8, 12, 4


def inputs():
    """The batch of step `BROKEN` holds a NaN."""
    x = torch.randn(BATCH * STEPS, 5, generator=torch.Generator().manual_seed(0))
    x[BATCH * BROKEN, 0] = float("nan")
    return x


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize(("on_finding", "steps"), [("stop", BROKEN + 1), (None, STEPS)])
def test_lightning_stops_after_the_step(package, on_finding, steps):
    lightning = importlib.import_module(package)
    from trainvitals.hooks.integrations.lightning import TrainVitals

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(5, 1)

        def training_step(self, batch, index):
            return self.body(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[TrainVitals(on_finding=on_finding)],
    )
    trainer.fit(Net(), DataLoader(TensorDataset(inputs()), batch_size=BATCH))
    assert trainer.global_step == steps


class Rows(Dataset):
    def __init__(self):
        self.x = inputs()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": torch.zeros(1)}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 1)

    def forward(self, x, labels):
        outputs = self.body(x)
        return {"loss": (outputs - labels).square().mean(), "logits": outputs}


@pytest.mark.parametrize(("on_finding", "steps"), [("stop", BROKEN + 1), (None, STEPS)])
def test_transformers_stops_after_the_step(tmp_path, monkeypatch, on_finding, steps):
    from transformers import Trainer, TrainingArguments

    from trainvitals.hooks.integrations.transformers import TrainVitals

    class InOrder(Trainer):
        def _get_train_sampler(self, *_args):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        max_grad_norm=0.0,
    )
    callbacks = [TrainVitals(on_finding=on_finding)]
    trainer = InOrder(Net(), arguments, train_dataset=Rows(), callbacks=callbacks)
    trainer.train()
    assert trainer.state.global_step == steps


def test_accelerates_tracker_says_so():
    from trainvitals.hooks.integrations.accelerate import TrainVitalsTracker

    tracker = TrainVitalsTracker(on_finding="stop")
    tracker.start()
    model = nn.Linear(5, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tracker.watch(model, optimizer)
    said = []
    for x in inputs().split(BATCH):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        said.append(tracker.should_stop())
    tracker.finish()
    assert said == [step >= BROKEN for step in range(STEPS)]
    assert tv.should_stop() is False
