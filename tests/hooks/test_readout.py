"""Numbers that arrive later are put back where they belong."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainvitals.hooks as tv
from trainvitals.hooks import deadunits, gradients, run, stats, watching
from trainvitals.hooks.readout import Readout


def test_values_come_back_in_order_whatever_their_shape_and_type() -> None:
    readout = Readout([torch.tensor(1.5), torch.arange(3), torch.tensor([[2.0], [3.0]])])
    assert readout.ready()
    assert readout.values() == [[1.5], [0.0, 1.0, 2.0], [2.0, 3.0]]


def test_deferred_numbers_give_the_same_records(
    recorded: Any, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plays a device by leaving every number a tensor until its record is sent."""

    def training() -> Any:
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        tv.watch(model, optimizer, interval=2, strict=True)
        train(model, optimizer, 5, after=lambda loss: tv.log({"loss": loss}))
        return recorded()

    expected = training()

    def later(tensor: Tensor) -> Any:
        return tensor.detach().clone()

    for module in (deadunits, gradients, run, stats, watching):
        monkeypatch.setattr(module, "number", later)
    found = training()
    for key in ("tv/grad_norm", "tv/grad_carried", "loss"):
        assert found.scalar(key) == pytest.approx(expected.scalar(key), rel=1e-6)
    for kind in ("activation", "parameter"):
        for step, rows in expected.samples(kind).items():
            for name, columns in rows.items():
                got = found.samples(kind)[step][name]
                assert got == pytest.approx(columns, rel=1e-5, nan_ok=True)
