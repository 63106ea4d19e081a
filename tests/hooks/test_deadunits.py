"""Dead units: never active in enough samples, judged per unit and not per zero."""

from typing import Any

import pytest
import torch
from torch import nn

import trainvitals.hooks as tv
from trainvitals.hooks.deadunits import MIN_BATCHES, MIN_POSITIONS, DeadUnits, has_flat_zero_side


def test_units_that_were_never_active_are_dead() -> None:
    dead = DeadUnits(nn.ReLU())
    outputs = torch.zeros(10, 4)
    outputs[3, 1] = 1.0
    dead.see(outputs, channels_first=False)
    assert dead.read() == (0.75, 10.0)
    outputs = torch.zeros(10, 4)
    outputs[0, 2] = 1.0
    dead.see(outputs, channels_first=False)
    assert dead.read() == (0.5, 20.0)


def test_convolution_units_are_channels() -> None:
    dead = DeadUnits(nn.ReLU())
    outputs = torch.zeros(2, 3, 5, 5)
    outputs[1, 0, 4, 4] = 0.1
    dead.see(outputs, channels_first=True)
    share, positions = dead.read()
    assert share == pytest.approx(2 / 3)
    assert positions == 2 * 25


def test_a_unit_that_died_is_forgotten_after_two_generations() -> None:
    dead = DeadUnits(nn.ReLU())
    dead.see(torch.ones(1000, 2), channels_first=False)
    share = 0.0
    for _ in range(3 * MIN_BATCHES):
        dead.see(torch.tensor([[1.0, 0.0]]).expand(1000, 2), channels_first=False)
        share, positions = dead.read()
    assert share == 0.5
    assert 10_000 <= positions <= 40_000


@pytest.mark.parametrize("positions", [32, 64, 1000])
def test_a_layer_that_dies_in_mid_training_is_seen_within_forty_samples(positions: int) -> None:
    dead = DeadUnits(nn.ReLU())
    for _ in range(105):
        dead.see(torch.ones(positions, 2), channels_first=False)
        assert dead.read()[0] == 0.0
    shares = []
    for _ in range(max(2 * MIN_BATCHES, 2 * MIN_POSITIONS // positions)):
        dead.see(torch.zeros(positions, 2), channels_first=False)
        shares.append(dead.read()[0])
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert dead.read()[1] >= MIN_POSITIONS


@pytest.mark.parametrize(
    ("module", "flat"),
    [
        (nn.ReLU(), True),
        (nn.ReLU6(), True),
        (nn.Hardswish(), True),
        (nn.Hardsigmoid(), True),
        (nn.Hardtanh(0.0, 1.0), True),
        (nn.Threshold(0.1, 0.0), True),
        (nn.Hardtanh(), False),
        (nn.Threshold(0.1, 20.0), False),
        (nn.LeakyReLU(), False),
        (nn.GELU(), False),
        (nn.Sigmoid(), False),
    ],
)
def test_only_modules_with_a_flat_zero_side_can_have_dead_units(
    module: nn.Module, flat: bool
) -> None:
    assert has_flat_zero_side(module) is flat


def test_hardswish_units_below_zero_are_alive() -> None:
    dead = DeadUnits(nn.Hardswish())
    dead.see(nn.Hardswish()(torch.tensor([[-1.0, -5.0]])), channels_first=False)
    assert dead.read() == (0.5, 1.0)


def test_a_layer_with_hopeless_biases_is_reported_dead(recorded: Any, train: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 4), nn.Sigmoid())
    with torch.no_grad():
        model[0].bias[:7] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 25, shape=(500, 8))
    rows = recorded().samples("activation")[24]
    assert rows["1"]["dead_fraction"] == pytest.approx(0.7)
    assert rows["1"]["dead_positions"] == 25 * 500
    assert "dead_fraction" not in rows["3"]


def test_sequence_layers_have_their_units_last(recorded: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    with torch.no_grad():
        model[0].bias[2] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    tv.watch(model, optimizer, strict=True)
    model(torch.randn(16, 40, 6)).sum().backward()
    optimizer.step()
    row = recorded().samples("activation")[0]["1"]
    assert row["dead_fraction"] == pytest.approx(1 / 5)
    assert row["dead_positions"] == 16 * 40
