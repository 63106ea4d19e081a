"""Tensors without values, modules without a hash, losses that are no usual number: left alone, without a word."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import trainvitals.hooks as tv

STEPS = 8
BATCH, FEATURES, CLASSES = 5, 8, 4


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def nothing() -> None:
    """The usual training."""


def dry_run_without_values() -> None:
    with FakeTensorMode():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        criterion = nn.CrossEntropyLoss()
        criterion(model(torch.randn(3, FEATURES)), torch.zeros(3, dtype=torch.long)).backward()
        optimizer.step()


def dry_run_on_meta() -> None:
    model = copy.deepcopy(net()).to("meta")
    model(torch.randn(3, FEATURES, device="meta")).sum().backward()


@dataclass
class Focal(nn.Module):
    """A dataclass has no hash."""

    gamma: float = 2.0

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        each = nn.functional.cross_entropy(scores, labels, reduction="none")
        return ((1 - (-each).exp()) ** self.gamma * each).mean()


def evaluation_by_a_dataclass() -> None:
    with torch.no_grad():
        Focal()(torch.randn(3, CLASSES), torch.zeros(3, dtype=torch.long))


def usual(scores: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores, torch.arange(len(scores)) % CLASSES)


def by_a_dataclass(scores: Tensor) -> Tensor:
    loss: Tensor = Focal()(scores, torch.arange(len(scores)) % CLASSES)
    return loss


def of_one_sample(scores: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores[0], torch.tensor(2))


def of_one_number(scores: Tensor) -> Tensor:
    return nn.functional.mse_loss(scores[0, 0], torch.tensor(0.5))


def of_one_probability(scores: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(scores[0, 0], torch.tensor(1.0))


def complex_one(scores: Tensor) -> Tensor:
    return torch.view_as_complex(scores.reshape(-1, 2)).mean()


BESIDE: list[Callable[[], None]] = [
    nothing,
    dry_run_without_values,
    dry_run_on_meta,
    evaluation_by_a_dataclass,
]
LOSSES: list[Callable[[Tensor], Tensor]] = [
    usual,
    by_a_dataclass,
    of_one_sample,
    of_one_number,
    of_one_probability,
    complex_one,
]
CASES = [(usual, beside) for beside in BESIDE] + [(loss, nothing) for loss in LOSSES[1:]]


def weights_after(
    loss: Callable[[Tensor], Tensor], beside: Callable[[], None], interval: int | None
) -> list[Tensor]:
    """Of a small training, in which `beside` is done between the steps; watched unless `interval` is 0."""
    torch.manual_seed(1)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    if interval != 0:
        tv.watch(model, optimizer, interval=interval, strict=True)
    for _ in range(STEPS):
        state = torch.get_rng_state()
        beside()
        torch.set_rng_state(state)
        optimizer.zero_grad()
        value = loss(model(torch.randn(BATCH, FEATURES)))
        value.backward(value.detach() if value.is_complex() else None)  # type: ignore[no-untyped-call]
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("interval", [None, 1, 1000])
@pytest.mark.parametrize(("loss", "beside"), CASES, ids=lambda case: case.__name__)
def test_the_training_is_the_same_and_nothing_is_said(
    recorded: Any,
    capsys: pytest.CaptureFixture[str],
    loss: Callable[[Tensor], Tensor],
    beside: Callable[[], None],
    interval: int | None,
) -> None:
    plain = weights_after(loss, beside, 0)
    call, backward = nn.Module.__call__, torch.autograd.backward
    watched = weights_after(loss, beside, interval)
    assert all(map(torch.equal, plain, watched))
    run = recorded()
    assert (nn.Module.__call__, torch.autograd.backward) == (call, backward)
    assert run.events("monitor") == [] == run.events("nonfinite")
    assert len(run.samples("parameter")) == (STEPS if interval == 1 else 1) or interval is None
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "failed" in line or "Warning" in line] == []


def test_a_criterion_without_a_hash_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"criterion Focal has no hash.*eq=False"):
        tv.watch(net(), criterion=Focal())


def test_a_model_that_is_made_on_meta_is_watched_once_it_has_values(recorded: Any) -> None:
    with torch.device("meta"):
        model = net()
    tv.watch(model, interval=1, strict=True)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        usual(model(torch.randn(BATCH, FEATURES))).backward()
        optimizer.step()
    run = recorded()
    assert run.events("monitor") == []
    rows = run.samples("parameter")[2]
    assert rows["0.weight"]["weight_rms"] == pytest.approx(0.1, rel=0.3)


def test_a_layer_of_complex_numbers_raises_no_warning(recorded: Any) -> None:
    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(FEATURES, CLASSES, dtype=torch.cfloat)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x.to(torch.cfloat))
            return out.abs()

    model = Wave()
    optimizer = torch.optim.Adam(model.parameters())
    tv.watch(model, optimizer, interval=1, strict=True)  # warnings are errors in these tests
    for _ in range(3):
        optimizer.zero_grad()
        usual(model(torch.randn(BATCH, FEATURES))).backward()
        optimizer.step()
    assert recorded().events("monitor") == []


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Looking back fails."""
    from trainvitals.hooks.guard import Guard

    def broken(self: Guard) -> bool:
        raise RuntimeError("no look back today")

    monkeypatch.setattr(Guard, "check_last_steps", broken)
    yield


def test_every_hook_is_taken_off_whatever_goes_wrong_at_the_end(
    recorded: Any, dropped: None
) -> None:
    call, backward = nn.Module.__call__, torch.autograd.backward
    model = net()
    tv.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    run = recorded()
    assert (nn.Module.__call__, torch.autograd.backward) == (call, backward)
    assert ["no look back today" in event.message for event in run.events("monitor")] == [True]


def test_an_optimizer_that_holds_nothing_of_the_model_is_told_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = net()
    prompt = torch.zeros(1, FEATURES, requires_grad=True)
    tv.watch(model, torch.optim.Adam([prompt]), strict=True)
    assert "Adam, that holds no parameter of the watched models" in capsys.readouterr().err
