"""The tracker for Hugging Face Accelerate."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals.hooks as tv
from trainvitals.hooks.integrations.accelerate import TrainVitalsTracker


@pytest.fixture(autouse=True)
def _fresh_state():
    yield
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


@pytest.fixture
def train():
    """Train by an accelerator whose tracker is watched by `watch(tracker, model, optimizer)`; the losses."""

    def run(tracker, watch, accumulate=1):
        torch.manual_seed(0)
        accelerator = Accelerator(
            log_with=tracker, cpu=True, gradient_accumulation_steps=accumulate
        )
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        x = torch.randn(48, 4)
        data = DataLoader(TensorDataset(x, x.prod(1, keepdim=True)), batch_size=8)
        accelerator.init_trackers("toy", config={"lr": 0.01, "depth": 2})
        model, optimizer, data = accelerator.prepare(model, optimizer, data)
        watch(tracker, model, optimizer)
        losses = []
        for inputs, targets in data:
            with accelerator.accumulate(model):
                loss = nn.functional.mse_loss(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
            accelerator.log({"loss": loss, "note": "text", "nested": {"twice": 2 * loss.item()}})
        accelerator.end_training()
        return losses

    return run


@pytest.mark.parametrize(
    "watch",
    [
        lambda tracker, model, optimizer: tracker.watch(model, optimizer),
        lambda tracker, model, optimizer: tv.watch(model, optimizer),
    ],
    ids=["tracker.watch", "tv.watch"],
)
def test_the_tracker_records_logs_configuration_layers_and_the_end(watch, train, dashboard):
    losses = train(TrainVitalsTracker(project="toy"), watch)
    seen = dashboard()
    run = seen.run()
    assert (run["project"], run["status"], run["last_step"]) == ("toy", "finished", 5)
    assert run["config"] == {"lr": 0.01, "depth": 2}
    assert seen.series("loss") == pytest.approx(dict(enumerate(losses)))
    assert seen.series("nested/twice") == pytest.approx(dict(enumerate(2 * x for x in losses)))
    assert {"0", "1", "2"} <= set(seen.layers())
    assert seen.problems() == []


def test_accumulated_batches_are_one_step(train, dashboard):
    train(TrainVitalsTracker(interval=1), lambda t, m, o: t.watch(m, o), accumulate=2)
    assert list(dashboard().series("tv/grad_norm")) == [0, 1, 2]


def test_a_given_step_is_kept(dashboard):
    accelerator = Accelerator(log_with=TrainVitalsTracker(), cpu=True)
    accelerator.init_trackers("toy")
    for step in (10, 20, 30):
        accelerator.log({"loss": step / 10}, step=step)
    assert accelerator.get_tracker("trainvitals", unwrap=True) is tv.current_run()
    accelerator.end_training()
    assert dashboard().series("loss") == {10: 1.0, 20: 2.0, 30: 3.0}
