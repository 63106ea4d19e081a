"""The scale of a gradient scaler, and gradients beside the mean of those before."""

from typing import Any

import pytest
import torch
from torch import nn

import trainvitals.hooks as tv
from trainvitals.hooks.alongside import alongside
from trainvitals.hooks.memory import Memory
from trainvitals.hooks.registry import Parameter


def scaled_training(model: nn.Module, factors: list[float], **scaler: Any) -> torch.amp.GradScaler:
    """One step for each factor of the loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    chosen = torch.amp.GradScaler("cpu", **scaler)
    tv.watch(model, optimizer, strict=True)
    for factor in factors:
        optimizer.zero_grad()
        chosen.scale(factor * model(torch.ones(4, 3)).sum()).backward()
        chosen.step(optimizer)
        chosen.update()
    return chosen


def test_the_scale_is_told_at_each_skipped_step_and_when_it_grows(recorded: Any) -> None:
    tv.init()
    factors = [1.0, float("inf"), float("inf"), 1.0, 1.0, 1.0]
    scaled_training(nn.Linear(3, 1), factors, init_scale=16.0, growth_interval=3)
    found = recorded().scalar_records("tv/amp_scale")
    # Steps 1 and 2 were never made: what is prepared keeps its number.
    assert found == [(1, 16.0), (1, 8.0), (1, 4.0), (4, 8.0)]


def test_a_scaler_that_is_not_enabled_tells_nothing(recorded: Any) -> None:
    tv.init()
    scaled_training(nn.Linear(3, 1), [1.0, 1.0], enabled=False)
    assert recorded().scalar_records("tv/amp_scale") == []


def test_the_scaler_is_as_it_was_afterwards() -> None:
    before = torch.amp.GradScaler.update
    tv.init()
    scaled_training(nn.Linear(3, 1), [1.0])
    tv.finish()
    assert torch.amp.GradScaler.update is before


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_gradients_are_compared_with_the_mean_of_those_before(kind: str) -> None:
    weight = nn.Parameter(torch.zeros(2, 3))
    more = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)([weight], lr=0.1, **more)
    parameter = Parameter("weight", "", "Linear", weight)
    weight.grad = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    assert alongside(optimizer, [parameter], Memory()) is None  # nothing came before
    optimizer.step()
    assert alongside(optimizer, [parameter], Memory()) == pytest.approx(1.0)
    weight.grad = torch.tensor([[-2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert alongside(optimizer, [parameter], Memory()) == pytest.approx(0.0, abs=1e-6)
    weight.grad = torch.tensor([[-1.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    assert alongside(optimizer, [parameter], Memory()) == pytest.approx(-1.0)


def test_plain_sgd_keeps_no_mean() -> None:
    weight = nn.Parameter(torch.zeros(2, 3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    weight.grad = torch.ones(2, 3)
    optimizer.step()
    assert alongside(optimizer, [Parameter("weight", "", "Linear", weight)], Memory()) is None


def test_a_gradient_that_lies_otherwise_than_its_mean_is_left_out() -> None:
    table, weight = nn.Parameter(torch.zeros(5, 3)), nn.Parameter(torch.zeros(2, 3))
    optimizer = torch.optim.SGD([table, weight], lr=0.1, momentum=0.9)
    table.grad, weight.grad = torch.ones(5, 3), torch.ones(2, 3)
    optimizer.step()
    rows = torch.tensor([[1, 3]])
    table.grad = torch.sparse_coo_tensor(rows, torch.ones(2, 3), (5, 3), check_invariants=True)
    held = [Parameter(name, "", "", tensor) for name, tensor in (("t", table), ("w", weight))]
    assert alongside(optimizer, held[:1], Memory()) is None
    assert alongside(optimizer, held, Memory()) == pytest.approx(1.0)
