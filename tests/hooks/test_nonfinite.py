"""The first NaN or infinity: noticed at its step, with the layer and the direction it came from."""

import math
from typing import Any

import pytest
import torch
from torch import nn

import trainvitals.hooks as tv
from trainvitals.hooks import guard
from trainvitals.hooks.nonfinite import explain_forward


class At(nn.Module):
    """Passes its input on, and does something to it from one call on."""

    def __init__(self, call: int, act: Any, until: int = 10**9) -> None:
        super().__init__()
        self.call, self.act, self.until = call, act, until
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.call <= self.calls - 1 < self.until:
            return self.act(inputs)
        return inputs


class NanBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.nan


def divide_by_zero(inputs: torch.Tensor) -> torch.Tensor:
    return inputs / torch.zeros_like(inputs)


def net(middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), middle, nn.Linear(6, 6), nn.Linear(6, 4))


def events(recorded: Any) -> list[tuple[int, dict[str, Any]]]:
    return [(event.step, event.data) for event in recorded().events("nonfinite")]


@pytest.mark.parametrize("step", [0, 5, 60])
def test_forward_names_the_layer_that_made_it(recorded: Any, train: Any, step: int) -> None:
    model = net(At(step, divide_by_zero))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, interval=1000, strict=True)
    train(model, optimizer, step + 4)
    ((found_at, data),) = events(recorded)
    assert found_at == step
    assert data["direction"] == "forward"
    assert data["layer"] == "2"
    assert data["type"] == "At"
    assert data["nan"] + data["inf"] == 16 * 6
    assert data["spread"] == ["3", "4", ""]
    (inputs,) = data["inputs"]
    assert inputs["shape"] == [16, 6]
    assert inputs["min"] == 0.0 and inputs["max"] > 0 and inputs["nonfinite"] == 0


def test_code_between_layers_is_blamed_on_the_layer_that_holds_it(
    recorded: Any, train: Any
) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.second(torch.log(self.first(inputs) - 1e6))

    model = nn.Sequential(nn.Linear(8, 8), Block(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 1)
    ((_, data),) = events(recorded)
    assert (data["direction"], data["layer"], data["type"]) == ("forward", "1", "Block")


def test_a_nonfinite_input_is_the_input(recorded: Any) -> None:
    model = net(nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    inputs = torch.randn(4, 8)
    inputs[1, 2] = math.nan
    model(inputs).sum().backward()
    optimizer.step()
    ((_, data),) = events(recorded)
    assert data["direction"] == "input"
    assert data["nan"] == 1
    assert data["inputs"][0]["nonfinite"] == 1


def test_a_nonfinite_parameter_is_named(recorded: Any, train: Any) -> None:
    model = net(nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 2)
    with torch.no_grad():
        model[3].weight[0, 0] = math.nan
    train(model, optimizer, 1)
    ((step, data),) = events(recorded)
    assert (step, data["direction"], data["layer"]) == (2, "parameter", "3")
    assert data["parameter"] == "3.weight"


def test_backward_names_the_layer_that_backward_met_first(recorded: Any, train: Any) -> None:
    model = net(At(3, NanBackward.apply))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    losses = train(model, optimizer, 4, after=lambda loss: tv.log({"loss": loss}))
    ((step, data),) = events(recorded)
    assert math.isfinite(losses[3])
    assert (step, data["direction"], data["layer"]) == (3, "backward", "0")
    assert data["parameter"] in ("0.weight", "0.bias")
    assert data["gradients"] == 2


def nan_loss(model: nn.Module) -> torch.Tensor:
    probability = model(torch.randn(4, 8)).sigmoid() * 0.0
    return (probability * torch.log(probability)).mean()


@pytest.mark.parametrize("logged", ["after", "before"])
def test_a_logged_loss_tells_that_the_loss_made_it(recorded: Any, logged: str) -> None:
    model = net(nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    loss = nan_loss(model)
    if logged == "before":
        tv.log({"train/loss": loss})
    loss.backward()
    optimizer.step()
    if logged == "after":
        tv.log({"train/loss": loss})
    ((step, data),) = events(recorded)
    assert (step, data["direction"], data.get("layer", "")) == (0, "loss", "")


def test_a_criterion_module_tells_that_the_loss_made_it(recorded: Any) -> None:
    model = net(nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    targets = torch.full((4,), -100)  # every label ignored: a mean over nothing
    nn.CrossEntropyLoss()(model(torch.randn(4, 8)), targets).backward()
    model[0].weight.grad.fill_(math.nan)
    optimizer.step()
    ((_, data),) = events(recorded)
    assert data["direction"] == "loss"


def test_an_update_that_overflows_is_the_update(recorded: Any) -> None:
    model = net(nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e38)
    tv.watch(model, optimizer, strict=True)
    (model(torch.randn(4, 8)).sum() * 1e3).backward()
    optimizer.step()
    ((step, data),) = events(recorded)
    assert (step, data["direction"]) == (0, "update")
    assert data["parameter"]


def test_a_huge_learning_rate_is_reported_once(recorded: Any, train: Any) -> None:
    model = net(nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e12)
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 12)
    found = events(recorded)
    assert len(found) == 1
    assert found[0][1]["direction"] in ("forward", "update", "backward", "loss")


def test_each_onset_is_reported_and_no_more(recorded: Any, train: Any) -> None:
    model = net(At(2, divide_by_zero, until=4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    tv.watch(model, optimizer, strict=True)
    weights = [parameter.detach().clone() for parameter in model.parameters()]

    def restore(_: Any) -> None:
        with torch.no_grad():
            for parameter, weight in zip(model.parameters(), weights, strict=True):
                parameter.copy_(weight)

    train(model, optimizer, 6, after=restore)
    model[2].call, model[2].until = 8, 9
    train(model, optimizer, 4, after=restore)
    assert [step for step, _ in events(recorded)] == [2, 8]


def test_minus_infinity_alone_is_an_intended_mask(recorded: Any, train: Any) -> None:
    class Masked(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros_like(inputs)
            mask[:, -1] = -math.inf
            return inputs + mask

    model = nn.Sequential(nn.Linear(8, 5), Masked())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 2)
    assert events(recorded) == []


def test_parts_called_on_their_own_are_watched_too(recorded: Any) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(8, 4), At(3, divide_by_zero))
            self.decoder = nn.Sequential(nn.Linear(4, 8), nn.ReLU())

    model = Pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, interval=1000, strict=True)
    for _ in range(5):
        optimizer.zero_grad()
        model.decoder(model.encoder(torch.randn(4, 8))).sum().backward()
        optimizer.step()
    ((step, data),) = events(recorded)
    assert (step, data["direction"], data["layer"]) == (3, "forward", "encoder.1")


def test_outputs_in_tuples_dicts_and_dataclasses_are_seen(recorded: Any, train: Any) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 4)
            self.bad = At(1, divide_by_zero)

        def forward(self, inputs: torch.Tensor) -> dict[str, Any]:
            hidden = self.inner(inputs)
            return {"index": torch.arange(3), "pair": (None, self.bad(hidden))}

    model = Wrapped()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, strict=True)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 8))["pair"][1].sum().backward()
        optimizer.step()
    ((step, data),) = events(recorded)
    assert (step, data["layer"]) == (1, "bad")


def test_a_skipped_scaler_step_is_no_step(recorded: Any) -> None:
    model = net(nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    tv.watch(model, optimizer, interval=1, strict=True)
    for index in range(4):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 8)).square().mean()
        scaler.scale(loss).backward()
        if index == 2:
            model[0].weight.grad[0, 0] = math.inf
        scaler.step(optimizer)
        scaler.update()
    run = recorded()
    assert sorted(run.scalar("tv/grad_norm")) == [0, 1, 2]
    assert run.events("nonfinite") == []


def test_weights_that_stay_nan_are_located_once(
    recorded: Any, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def explain(*args: Any) -> Any:
        calls.append(args)
        return explain_forward(*args)

    monkeypatch.setattr(guard, "explain_forward", explain)
    model = net(At(3, divide_by_zero))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, interval=1000, strict=True)
    train(model, optimizer, 12)
    assert [step for step, _ in events(recorded)] == [3]
    assert len(calls) == 1


def test_one_bad_element_of_a_large_gradient_is_found_by_the_next_loss(recorded: Any) -> None:
    """Not every weight of a large model is looked at after each step, but the loss sees it."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters())
    tv.watch(model, optimizer, interval=1000, strict=True)
    for step in range(8):
        optimizer.zero_grad()
        model(torch.randn(16, 64)).square().mean().backward()
        if step == 5:
            model[0].weight.grad[17, 31] = math.nan
        optimizer.step()
    ((found_at, data),) = events(recorded)
    assert (found_at, data["direction"], data["layer"]) == (5, "backward", "0")
    assert data["parameter"] == "0.weight"
