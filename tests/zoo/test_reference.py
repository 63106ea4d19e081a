"""The independent measurements of the zoo against backpropagation by hand, in NumPy and float64."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.zoo.checks import expected_activation, expected_parameter, grad_norm
from tests.zoo.session import Role, Session

RATE = 0.1


class Handmade(nn.Module):
    """The net of which every number is computed by hand: linear, ReLU, linear, without biases."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4, bias=False)
        self.relu = nn.ReLU()
        self.second = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(first)
            self.second.weight.copy_(second)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.relu(self.first(inputs)))


def test_readings_agree_with_backpropagation_by_hand(tmp_path: Path) -> None:
    drawn = np.random.default_rng(5)
    first, second = drawn.normal(size=(4, 3)), drawn.normal(size=(2, 4))
    first[3] = -np.abs(first[3])  # never above zero for positive inputs
    batches = np.abs(drawn.normal(size=(2, 7, 3)))

    zoo = Session(Role.REFERENCE, str(tmp_path))
    model = Handmade(torch.tensor(first), torch.tensor(second)).double()
    with torch.no_grad():
        model.first.weight.copy_(torch.tensor(first))
        model.second.weight.copy_(torch.tensor(second))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    zoo.watch(model, optimizer)
    for inputs in torch.tensor(batches):
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        zoo.step(optimizer)
    assert zoo.reference is not None
    steps = zoo.reference.close()

    assert len(steps) == 2
    alive = np.zeros(4, bool)
    for step, inputs in enumerate(batches):
        hidden = inputs @ first.T
        active = np.maximum(hidden, 0)
        outputs = active @ second.T
        slope = 2 * outputs
        of_second = slope.T @ active
        of_first = ((slope @ second) * (hidden > 0)).T @ inputs
        layer = expected_activation(steps[step], "first")
        assert layer["rms"] == pytest.approx(math.sqrt((hidden**2).mean()))
        assert layer["std"] == pytest.approx(math.sqrt(((hidden - hidden.mean()) ** 2).mean()))
        assert layer["absmax"] == pytest.approx(max(hidden.max(), -hidden.min()))
        relu = expected_activation(steps[step], "relu")
        assert relu["zero_fraction"] == pytest.approx((hidden <= 0).mean())
        alive |= (hidden > 0).any(0)
        assert not alive[3]
        assert relu["dead_fraction"] == (~alive).mean()
        assert relu["dead_positions"] == 7 * (step + 1)
        row = expected_parameter(steps[step], "first.weight")
        assert row["weight_rms"] == pytest.approx(math.sqrt((first**2).mean()))
        assert row["grad_rms"] == pytest.approx(math.sqrt((of_first**2).mean()))
        assert row["update_ratio"] == pytest.approx(
            RATE * math.sqrt((of_first**2).sum() / (first**2).sum())
        )
        assert grad_norm(steps[step]) == pytest.approx(
            math.sqrt((of_first**2).sum() + (of_second**2).sum())
        )
        first, second = first - RATE * of_first, second - RATE * of_second
