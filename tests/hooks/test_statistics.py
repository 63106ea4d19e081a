"""Recorded statistics against the same numbers computed in float64 by other means."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainvitals.hooks as tv
from trainvitals.hooks import histogram, stats
from trainvitals.hooks.packed import Packed
from trainvitals.hooks.wire.bins import BINS, bin_of


def small_net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))


@pytest.mark.parametrize("offset", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_moments_match_float64(offset: float, dtype: torch.dtype) -> None:
    tensor = (torch.randn(64, 32, generator=torch.Generator().manual_seed(1)) + offset).to(dtype)
    reference = tensor.to(torch.float64).numpy()
    taken = stats.moments(tensor)
    assert taken.mean == pytest.approx(reference.mean(), rel=1e-4, abs=1e-6)
    assert taken.std == pytest.approx(reference.std(), rel=1e-3)
    assert taken.rms == pytest.approx(np.sqrt((reference**2).mean()), rel=1e-5)
    assert taken.absmax == pytest.approx(np.abs(reference).max())
    assert taken.nonfinite == 0


def test_a_constant_tensor_has_no_spread() -> None:
    taken = stats.moments(torch.ones(1000))
    assert taken.std == 0.0
    assert taken.rms == pytest.approx(1.0)


def test_squares_beyond_float32_are_still_measured() -> None:
    taken = stats.moments(torch.full((10,), 1e30))
    assert taken.rms == pytest.approx(1e30)
    assert taken.nonfinite == 0


def test_nonfinite_values_are_counted_and_show_in_the_moments() -> None:
    taken = stats.moments(torch.tensor([1.0, math.nan, math.inf, -math.inf]))
    assert taken.nonfinite == 3
    assert math.isnan(float(taken.mean))
    assert math.isnan(float(taken.absmax))


@pytest.mark.parametrize("shape", [(1500, 1024), (2048, 768), (64, 64, 300, 3)])
def test_a_large_tensor_is_sampled_across_every_dimension(shape: tuple[int, ...]) -> None:
    index = torch.arange(math.prod(shape)).reshape(shape)
    part = stats.subsample(index)
    assert len(part) <= stats.SUBSAMPLE_ABOVE
    stride = int(part[1] - part[0])
    assert all(math.gcd(stride, size) == 1 for size in shape)
    last = shape[-1]
    assert len(np.unique(part.numpy() % last)) == last


def test_zero_fraction_counts_exact_zeros() -> None:
    assert stats.zero_fraction(torch.tensor([0.0, -0.0, 1e-38, 2.0])) == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_histograms_agree_with_the_reference_bins(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(4000, generator=generator) * 10 ** (
        8 * torch.rand(4000, generator=generator) - 4
    )
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0**-32, -(2.0**-33), 2.0**14, 30000.0])
    tensor = torch.cat([values, special]).to(dtype)
    counts = histogram.fold(histogram.count_patterns(tensor).numpy()[None])[0]
    finite = tensor[torch.isfinite(tensor)].to(torch.float64).numpy()
    assert counts.tolist() == np.bincount(bin_of(finite), minlength=BINS).tolist()


def test_histograms_leave_nonfinite_values_out() -> None:
    tensor = torch.tensor([math.nan, math.inf, -math.inf, 1.0])
    assert histogram.fold(histogram.count_patterns(tensor).numpy()[None]).sum() == 1


def test_recorded_rows_match_the_tensors_of_the_step(recorded: Callable[[], Any]) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    inputs = torch.randn(16, 8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    hidden = model[0](inputs)  # an extra call of a part, before the whole
    loss = nn.functional.cross_entropy(model(inputs), torch.zeros(16, dtype=torch.long))
    loss.backward()
    optimizer.step()
    after = {name: p.detach().clone() for name, p in model.named_parameters()}
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    run = recorded()

    activation = run.samples("activation")[0]["0"]
    reference = hidden.detach().double().numpy()
    assert activation["mean"] == pytest.approx(reference.mean(), rel=1e-4, abs=1e-6)
    assert activation["std"] == pytest.approx(reference.std(), rel=1e-4)
    assert activation["absmax"] == pytest.approx(np.abs(reference).max())
    relu = run.samples("activation")[0]["1"]
    assert relu["zero_fraction"] == pytest.approx((reference <= 0).mean())

    norm = 0.0
    for name, row in run.samples("parameter")[0].items():
        weight, grad = before[name].double().numpy(), grads[name].double().numpy()
        moved = after[name].double().numpy() - weight
        norm += (grad**2).sum()
        assert row["weight_rms"] == pytest.approx(np.sqrt((weight**2).mean()), rel=1e-5)
        assert row["weight_std"] == pytest.approx(weight.std(), rel=1e-3)
        assert row["grad_rms"] == pytest.approx(np.sqrt((grad**2).mean()), rel=1e-4)
        assert row["grad_absmax"] == pytest.approx(np.abs(grad).max())
        ratio = np.sqrt((moved**2).mean()) / np.sqrt((weight**2).mean())
        assert row["update_ratio"] == pytest.approx(ratio, rel=1e-3)
        assert row["unchanged"] == 0.0
    assert run.scalar("tv/grad_norm")[0] == pytest.approx(math.sqrt(norm), rel=1e-5)
    assert run.scalar("tv/lr/0") == {0: 0.1}


def test_histograms_count_every_element_of_every_row(
    recorded: Callable[[], Any], train: Any
) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=4, strict=True)
    train(model, optimizer, 6)
    run = recorded()
    sizes = [math.prod(row.shape) for row in run.layouts("parameter")[-1].rows]
    assert sorted(run.histograms("weight")) == [0, 4]
    assert run.histograms("weight")[0].sum(axis=1).tolist() == sizes
    assert run.histograms("gradient")[4].sum(axis=1).tolist() == sizes
    assert run.histograms("activation")[0].sum(axis=1).tolist() == [16 * 12, 16 * 12, 16 * 4]


def test_a_parameter_the_optimizer_lacks_is_reported_as_unchanged(
    recorded: Callable[[], Any], train: Any
) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 2)
    run = recorded()
    held = {row.name: row.in_optimizer for row in run.layouts("parameter")[-1].rows}
    assert held == {"0.weight": False, "0.bias": False, "2.weight": True, "2.bias": True}
    rows = run.samples("parameter")[1]
    assert rows["0.weight"]["unchanged"] == 1.0
    assert rows["2.weight"]["unchanged"] == 0.0


def test_a_parameter_without_gradient_has_no_gradient_columns(
    recorded: Callable[[], Any], train: Any
) -> None:
    model = small_net()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    train(model, optimizer, 1)
    run = recorded()
    row = run.samples("parameter")[0]["0.weight"]
    assert "grad_rms" not in row
    assert "update_ratio" not in row
    trainable = {row.name: row.trainable for row in run.layouts("parameter")[-1].rows}
    assert trainable["0.weight"] is False


def test_a_zero_parameter_has_no_update_ratio(recorded: Callable[[], Any], train: Any) -> None:
    model = small_net()
    nn.init.zeros_(model[2].bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 2)
    samples = recorded().samples("parameter")
    assert "update_ratio" not in samples[0]["2.bias"]
    assert samples[0]["2.bias"]["unchanged"] == 0.0
    assert samples[1]["2.bias"]["update_ratio"] > 0


def test_sparse_gradients_are_measured(recorded: Callable[[], Any]) -> None:
    model = nn.Embedding(50, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, strict=True)
    model(torch.tensor([1, 1, 3])).sum().backward()
    optimizer.step()
    run = recorded()
    assert run.scalar("tv/grad_norm")[0] == pytest.approx(math.sqrt(4 * (2**2 + 1**2)))
    assert run.samples("parameter")[0]["weight"]["grad_absmax"] == 2.0


def test_small_tensors_together_give_what_each_gives_alone() -> None:
    generator = torch.Generator().manual_seed(4)
    tensors = [
        torch.randn(7, 5, generator=generator).t(),
        torch.zeros(1),
        torch.randn(300, generator=generator).relu().to(torch.bfloat16),
        torch.tensor([1.0, math.nan, -math.inf]),
        torch.full((10,), 1e30),
        torch.randn(64, generator=generator, dtype=torch.float64) + 1000,
    ]
    packed = Packed(tensors)
    together = zip(
        tensors, packed.moments(), packed.patterns(), packed.zero_fractions(), strict=True
    )
    for tensor, taken, counts, zeros in together:
        assert taken == pytest.approx(stats.moments(tensor), rel=1e-4, abs=1e-6, nan_ok=True)
        assert torch.equal(counts, histogram.count_patterns(tensor))
        assert zeros == float((tensor == 0).double().mean())
