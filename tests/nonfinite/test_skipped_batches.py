"""Trainings that look at their loss themselves and give up a batch whose is not finite: it is told of all the same, at
its step and place, though no backward pass ever begins from it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
from nonfinite.bench import BATCH, CLASSES, FEATURES, STEPS, WIDTH, Fault, sgd, spoil
from nonfinite.models import named
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader

import trainvitals.hooks as tv
from trainvitals.hooks.spool import find_streams, read_stream
from trainvitals.hooks.wire.records import Event

AFTER = 4
LABELS = torch.arange(BATCH) % CLASSES
steps = pytest.mark.parametrize("step", STEPS)
Judge = Callable[[Tensor, Tensor], Tensor]


def row(fault: nn.Module) -> nn.Module:
    """Layers of torch, whose calls are not noted one by one but for the fault's."""
    return named(
        lower=nn.Linear(FEATURES, WIDTH),
        act=nn.ReLU(),
        middle=fault,
        head=nn.Linear(WIDTH, CLASSES),
    )


class Coded(nn.Module):
    """A model with code of its own round its layers."""

    def __init__(self, fault: nn.Module) -> None:
        super().__init__()
        self.lower, self.middle = nn.Linear(FEATURES, WIDTH), fault
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.head(self.middle(torch.relu(self.lower(inputs))))
        return out


MODELS: dict[str, Callable[[nn.Module], nn.Module]] = {"row": row, "coded": Coded}
models = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
judges = pytest.mark.parametrize(
    "judge", [cross_entropy, nn.CrossEntropyLoss()], ids=["function", "module"]
)


class Training:
    """A loop as many a script has it."""

    def __init__(self, model: nn.Module, judge: Judge = cross_entropy, **settings: Any) -> None:
        torch.manual_seed(3)
        self.model, self.judge = model, judge
        self.optimizer = sgd(model.parameters())
        self.skipped = 0
        tv.watch(model, self.optimizer, strict=True, **settings)

    def batch(self, inputs: Tensor | None = None, labels: Tensor = LABELS) -> None:
        output = self.model(torch.randn(BATCH, FEATURES) if inputs is None else inputs)
        loss = self.judge(output, labels)
        if not torch.isfinite(loss):
            self.skipped += 1
            self.optimizer.zero_grad()
            return
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def go_on(self, batches: int) -> None:
        for _ in range(batches):
            self.batch()


def told(found: Any) -> list[tuple[int, str, str]]:
    return [(step, data["direction"], data.get("layer", "")) for step, data in found()]


@steps
@judges
@models
@pytest.mark.parametrize("times", [1, 2, 7])
def test_layer_breaks(
    found: Any, build: Callable[[nn.Module], nn.Module], judge: Judge, step: int, times: int
) -> None:
    fault = Fault(spoil)
    training = Training(build(fault), judge)
    training.go_on(step)
    fault.on = True
    training.go_on(times)
    fault.on = False
    training.go_on(AFTER)
    assert training.skipped == times
    assert told(found) == [(step, "forward", "middle")]


@steps
@models
def test_batch_is_broken(found: Any, build: Callable[[nn.Module], nn.Module], step: int) -> None:
    training = Training(build(nn.ReLU()))
    training.go_on(step)
    broken = torch.full((BATCH, FEATURES), math.nan)
    training.batch(broken)
    training.go_on(AFTER)
    ((at, data),) = found()
    assert (at, data["direction"], data["layer"]) == (step, "input", "lower")
    assert data["inputs"][0]["nonfinite"] == BATCH * FEATURES
    (fingerprint,) = data["fingerprint"]
    assert fingerprint["crc32"] == f"{crc32(broken.numpy().tobytes()):08x}"


@steps
def test_loss_is_undefined(found: Any, step: int) -> None:
    training = Training(Coded(nn.ReLU()), nn.CrossEntropyLoss())
    training.go_on(step)
    training.batch(labels=torch.full((BATCH,), -100))  # none is left to take the mean of
    training.go_on(AFTER)
    assert training.skipped == 1
    assert told(found) == [(step, "loss", "")]


@steps
def test_training_ends_at_an_undefined_loss(found: Any, step: int) -> None:
    training = Training(Coded(nn.ReLU()), nn.CrossEntropyLoss())
    training.go_on(step)
    training.batch(labels=torch.full((BATCH,), -100))
    assert training.skipped == 1
    assert told(found) == [(step, "loss", "")]


@pytest.mark.parametrize("interval", [None, 10, 1000])
def test_what_was_skipped_is_not_taken_for_meant(found: Any, interval: int | None) -> None:
    """A sampled step that begins with a broken batch goes well in the end."""
    fault = Fault(spoil)
    training = Training(row(fault), interval=interval)
    for step in range(31):
        fault.on = step in (0, 10, 25)
        training.batch()
        if fault.on:
            fault.on = False
            training.batch()
    assert told(found) == [(step, "forward", "middle") for step in (0, 10, 25)]


@steps
def test_accumulated_batches(found: Any, step: int) -> None:
    fault = Fault(spoil)
    model = Coded(fault)
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)
    for index in range(step + AFTER):
        for part in range(3):
            fault.on = (index, part) == (step, 1)
            loss = cross_entropy(model(torch.randn(BATCH, FEATURES)), LABELS)
            if loss.isfinite():
                loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert told(found) == [(step, "forward", "middle")]


@steps
def test_weights_that_a_step_broke_are_told_once(found: Any, step: int) -> None:
    """A row of an embedding that only some batches read: the step that broke it is to blame, however late it shows."""
    model = named(words=nn.Embedding(6, WIDTH), head=nn.Linear(WIDTH, CLASSES))
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)
    for index in range(step + 8):
        words = torch.tensor([5]) if index == step + 3 else torch.arange(5)
        loss = cross_entropy(model(words), torch.zeros(len(words), dtype=torch.int64))
        optimizer.zero_grad()
        if loss.isfinite():
            loss.backward()
            optimizer.step()
        if index == step + 2:
            with torch.no_grad():
                model.get_parameter("words.weight")[5] = math.nan
    assert told(found) == [(step + 3, "parameter", "words")]


def test_passes_without_a_loss_are_left_alone(found: Any) -> None:
    """Whatever a healthy training does with its model besides."""
    training = Training(row(nn.ReLU()))
    for step in range(40):
        training.batch()
        for _ in range(step % 7):
            training.model(torch.randn(BATCH, FEATURES))
    assert found() == []


def test_losses_of_another_model(found: Any) -> None:
    """One that is not watched, and whose loss is given up."""
    training, other, judge = Training(row(nn.ReLU())), nn.Linear(FEATURES, 2), nn.MSELoss()
    for step in range(40):
        training.batch()
        if step % 4 == 3:
            judge(other(torch.full((BATCH, FEATURES), math.nan)), torch.zeros(BATCH, 2))
    assert found() == []


class Padded(nn.Module):
    """Gives NaN for what is padded, which whoever works with it leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.Linear(FEATURES, FEATURES)

    def forward(self, inputs: Tensor, some: int) -> Tensor:
        return torch.cat(
            [self.lower(inputs[:some]), torch.full((BATCH - some, FEATURES), math.nan)]
        )


def test_one_loss_of_several_passes(found: Any) -> None:
    """That one of them gives NaN, which the loss leaves out, is no skipped batch."""
    encoder, decoder = Padded(), nn.Linear(FEATURES, FEATURES)
    optimizer = sgd([*encoder.parameters(), *decoder.parameters()])
    tv.watch([encoder, decoder], optimizer, strict=True)
    for step in range(40):
        batch = torch.randn(BATCH, FEATURES)
        some = 8 if step % 10 == 5 else BATCH
        parts = [encoder(batch, some)[:some] for _ in range(1 + step // 10)]
        loss = mse_loss(sum(map(decoder, parts)), batch[:some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found() == []


@steps
def test_one_of_two_turns_is_left_out(found: Any, step: int) -> None:
    """A generator and a discriminator: the generator's loss is given up."""
    fault = Fault(spoil)
    generator, judge = row(fault), nn.Linear(CLASSES, 1)
    both = sgd(generator.parameters()), sgd(judge.parameters())
    tv.watch([generator, judge], both, strict=True)
    for index in range(step + AFTER):
        for turn, optimizer in enumerate(both):
            fault.on = (index, turn) == (step, 0)
            made = generator(torch.randn(BATCH, FEATURES))
            loss = judge(made if turn == 0 else made.detach()).square().mean()
            optimizer.zero_grad()
            if loss.isfinite():
                loss.backward()
                optimizer.step()
    assert told(found) == [(step, "forward", "middle")]


@steps
@judges
@models
def test_all_batches_from_a_broken_step_on(
    found: Any, tmp_path: Path, step: int, judge: Judge, build: Callable[[nn.Module], nn.Module]
) -> None:
    """A step breaks the weights, so that no loss is ever finite again: told while the training goes on."""
    training = Training(build(nn.ReLU()), judge)
    (folder,) = find_streams(tmp_path / ".trainvitals")
    batches = DataLoader(torch.randn((step + 9) * BATCH, FEATURES), BATCH)
    told_after: list[int] = []
    for index, inputs in enumerate(batches):
        training.optimizer.param_groups[0]["lr"] = math.inf if index == step else 0.01
        training.batch(inputs)
        records = read_stream(folder)
        if any(isinstance(record, Event) and record.kind == "nonfinite" for record in records):
            told_after.append(training.skipped)
    assert training.skipped == 8
    assert told_after[0] <= 6
    assert told(found) == [(step, "update", "lower")]
