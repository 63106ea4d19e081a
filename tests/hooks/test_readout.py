"""Numbers that arrive later are put back where they belong."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import trainvitals.hooks as tv
from trainvitals.hooks import readout
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.gathered import COLUMN
from trainvitals.hooks.gradients import GradientNorm
from trainvitals.hooks.parameterstats import Members, StepStatistics
from trainvitals.hooks.readout import Readout
from trainvitals.hooks.registry import Registry, Rows
from trainvitals.hooks.taps import Taps


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

    monkeypatch.setattr(readout, "on_host", lambda tensor: False)
    found = training()
    for key in ("tv/grad_norm", "tv/grad_carried", "loss"):
        assert found.scalar(key) == pytest.approx(expected.scalar(key), rel=1e-6)
    for kind in ("activation", "parameter"):
        for step, rows in expected.samples(kind).items():
            for name, columns in rows.items():
                got = found.samples(kind)[step][name]
                assert got == pytest.approx(columns, rel=1e-5, abs=1e-7, nan_ok=True)
    for kind in ("activation", "weight", "gradient"):
        for step, counts in expected.histograms(kind).items():
            assert found.histograms(kind)[step].tolist() == counts.tolist()


class Synchronisations(TorchDispatchMode):
    """Counts the operations by which Python waits for a tensor's value."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "equal", "is_nonzero"):
            self.met.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("histograms", [False, True])
@pytest.mark.parametrize("width", [8, 200])
def test_a_sample_reads_no_value_one_by_one(histograms: bool, width: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), foreach=True)
    registry = Registry()
    registry.add(model, (), ())
    rows = {"activation": Rows(), "parameter": Rows()}
    registry.place_parameters(rows["parameter"], set())
    parameters = list(registry.parameters.values())
    draft, taps = Draft(0, True), Taps(rows["activation"])
    taps.begin(draft, histograms)
    hidden = torch.randn(256, 8)
    outputs = []
    for name, module in model.named_children():
        hidden = module(hidden)
        outputs.append((module, name, hidden))
    hidden.sum().backward()
    with Synchronisations() as synchronisations:
        for module, name, output in outputs:
            taps.see(module, name, output)
        statistics = StepStatistics(
            Members(parameters, rows["parameter"], optimizer), draft, histograms
        )
        statistics.take_gradients()
        norm = GradientNorm([p.tensor.grad for p in parameters])  # type: ignore[misc]
    optimizer.step()
    with synchronisations:
        statistics.finish()
        taps.finish()
    assert synchronisations.met == []
    assert isinstance(norm.value, float)
    assert len(draft.blocks["parameter", COLUMN["update_ratio"]].rows) == 4


def test_a_sample_of_a_device_comes_over_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "on_host", lambda tensor: False)
    copies: list[int] = []
    monkeypatch.setattr(
        readout, "_copy", lambda flat: (copies.append(len(flat)), (flat, flat, None))[1]
    )
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    nn.functional.mse_loss(model(torch.randn(5, 8)), torch.randn(5, 4)).backward()
    optimizer.step()
    assert len(copies) == 1
    tv.finish()
