"""Dead units: never active in enough samples, judged per unit and not per zero."""

import math
from typing import Any

import pytest
import torch
from torch import nn

import trainvitals.hooks as tv
from trainvitals.hooks.deadunits import MIN_BATCHES, MIN_POSITIONS, DeadUnits, has_flat_zero_side
from trainvitals.hooks.plain import values
from trainvitals.hooks.units import batch_variation, saturated_fraction


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


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_channels_are_alive_wherever_they_were_active_in_any_layout(memory: Any) -> None:
    outputs = torch.zeros(3, 5, 4, 6)
    outputs[2, 1, 3, 5] = outputs[0, 4, 0, 0] = 1.0
    dead = DeadUnits(nn.ReLU())
    dead.see(outputs.to(memory_format=memory), channels_first=True)
    assert dead.read() == (pytest.approx(0.6), 3 * 24)


@pytest.mark.parametrize("layout", ["array", "contiguous", "channels_last", "transposed"])
def test_one_sample_that_is_nan_kills_no_unit(layout: str) -> None:
    outputs = torch.ones(4, 5, 3, 6)
    outputs[:, 1] = 0.0
    outputs[2] = math.nan
    forms = {
        "array": outputs.numpy(),
        "contiguous": outputs,
        "channels_last": outputs.to(memory_format=torch.channels_last),
        "transposed": outputs.transpose(0, 3).contiguous().transpose(0, 3),
    }
    dead = DeadUnits(nn.ReLU())
    dead.see(forms[layout], channels_first=True)
    assert dead.read() == (pytest.approx(0.2), 4 * 18)


@pytest.mark.parametrize("shape", [(40, 10), (7, 900, 10), (300, 10)])
def test_units_in_one_tail_are_saturated_and_switching_ones_are_not(shape: tuple[int, ...]) -> None:
    outputs = torch.zeros(shape)
    outputs[..., :3] = 0.99
    outputs[..., 3] = -0.99
    outputs[..., 4] = torch.where(torch.rand(shape[:-1]) < 0.5, 0.99, -0.99)
    assert saturated_fraction(outputs, (-0.97, 0.97), False) == pytest.approx(0.4)
    if len(shape) == 3:
        first = outputs.transpose(1, 2)
        assert saturated_fraction(first, (-0.97, 0.97), True) == pytest.approx(0.4)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("shape", [(8, 30), (5, 4, 6), (64, 2000)])
def test_variation_between_samples_is_a_share_of_the_mean_square(
    shape: tuple[int, ...], offset: float
) -> None:
    outputs = torch.randn(shape, generator=torch.Generator().manual_seed(1)) + offset
    exact = outputs.double()
    rms = float(exact.square().mean().sqrt())
    expected = float(exact.var(0, correction=0).mean()) / rms**2
    found = batch_variation(outputs, rms, values(outputs))
    assert found == pytest.approx(expected, rel=1e-3 if shape[0] <= 16 else 0.5)


@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1e-20, 1e18, 1e30, 1e38])
def test_variation_between_samples_does_not_depend_on_the_scale(scale: float) -> None:
    outputs = torch.rand(6, 40, generator=torch.Generator().manual_seed(2))
    expected = batch_variation(outputs, 1.0, values(outputs))
    scaled = outputs * scale
    rms = math.sqrt(float(scaled.double().square().mean()))
    found = batch_variation(scaled, rms, values(scaled))
    assert 0.05 < float(expected) < 1
    assert found == pytest.approx(expected, rel=1e-2)  # below 1e-38 float32 has few digits


def test_variation_of_sparse_outputs_is_that_of_the_features_looked_at() -> None:
    generator = torch.Generator().manual_seed(2)
    outputs = torch.randn(2, 16_384, generator=generator)
    outputs *= torch.rand(2, 16_384, generator=generator) > 0.99
    exact = outputs.double()
    rms = float(exact.square().mean().sqrt())
    expected = float(exact.var(0, correction=0).mean()) / rms**2
    assert batch_variation(outputs, rms, values(outputs)) == pytest.approx(expected, rel=0.5)


def test_a_layer_that_gives_the_same_for_every_sample_does_not_vary(recorded: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([9.0, -9.0, 9.0, 0.1, 0.2]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    tv.watch(model, optimizer, strict=True)
    model(torch.randn(16, 6)).sum().backward()
    optimizer.step()
    rows = recorded().samples("activation")[0]
    assert rows["0"]["batch_variation"] == rows["1"]["batch_variation"] == 0.0
    assert rows["1"]["saturated_fraction"] == pytest.approx(0.6)
    assert "saturated_fraction" not in rows["0"]
