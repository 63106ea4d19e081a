"""Recorded statistics against the same numbers computed in float64 by other means."""

import gc
import math
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import trainvitals.hooks as tv
from trainvitals.hooks import histogram, plain, stats
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.gathered import COLUMN
from trainvitals.hooks.gradients import GradientNorm
from trainvitals.hooks.packed import Packed
from trainvitals.hooks.parameterstats import Members, StepStatistics
from trainvitals.hooks.registry import Registry, Rows
from trainvitals.hooks.wire.bins import BINS, bin_of, edges


def flat(tensor: torch.Tensor) -> Any:
    return tensor.reshape(-1).float().numpy()


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
    step = plain.stride(index, stats.SUBSAMPLE)
    part = plain.flat(index)[::step]
    assert 0.5 * stats.SUBSAMPLE <= len(part) <= 1.1 * stats.SUBSAMPLE
    assert all(math.gcd(step, size) == 1 for size in shape)
    assert len(np.unique(part.numpy() % shape[-1])) == shape[-1]


@pytest.mark.parametrize(
    "shape", [(30, 154), (2310, 15), (210, 79), (30030,), (4097,), (510, 2090)]
)
@pytest.mark.parametrize("limit", [1 << 10, 1 << 12, 1 << 14])
def test_dimensions_of_many_factors_leave_at_least_half_of_a_sub_sample(
    shape: tuple[int, ...], limit: int
) -> None:
    step = plain.stride(torch.empty(shape), limit)
    assert math.prod(shape) / step >= min(limit, math.prod(shape)) / 2
    assert all(math.gcd(step, size) == 1 for size in shape)


def test_zero_fraction_counts_exact_zeros() -> None:
    taken = stats.moments(torch.tensor([0.0, -0.0, 1e-38, 2.0]), zeros=True)
    assert taken.zero_fraction == 0.5


@pytest.mark.parametrize("sizes", [[5_000_003], [3_000_000, 1 << 16, (1 << 16) + 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradient_norm_over_millions_of_like_elements_keeps_its_digits(
    sizes: list[int], dtype: torch.dtype
) -> None:
    gradients = [torch.full((size,), 0.1, dtype=dtype) for size in sizes]
    exact = float(gradients[0][0].double()) * math.sqrt(sum(sizes))
    assert GradientNorm(gradients).value == pytest.approx(exact, rel=1e-4)
    holes = [torch.full((size, 2), 0.1, dtype=dtype)[:, 0] for size in sizes]
    assert GradientNorm(holes).value == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30, 1e200])
def test_the_norm_of_float64_gradients_of_any_size(unit: float) -> None:
    gradients = [torch.full((3,), 3 * unit, dtype=torch.float64) for _ in range(3)]
    gradients[1] = torch.full((2, 2), 4 * unit, dtype=torch.float64)
    exact = math.sqrt(6 * 9 + 4 * 16) * unit
    assert GradientNorm(gradients).value == pytest.approx(exact, rel=1e-9, abs=0)
    assert GradientNorm(gradients[:1]).value == pytest.approx(math.sqrt(27) * unit, rel=1e-9, abs=0)
    gradients[0] = torch.tensor([math.inf, 1.0], dtype=torch.float64)
    assert GradientNorm(gradients).value == math.inf


FLOATS = st.floats(-1, 1, allow_subnormal=False, width=32)


@pytest.mark.parametrize("size", [5, 20_000, 1_200_000])
@pytest.mark.parametrize("unit", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_float64_values_of_any_size_are_measured(size: int, unit: float) -> None:
    values = torch.arange(size, dtype=torch.float64) * unit
    taken = stats.moments(values, zeros=True)
    # Of 0, 1, ..., n - 1: the mean is (n - 1) / 2, the variance (n^2 - 1) / 12.
    bound = 1e-2 if size > stats.SUBSAMPLE_ABOVE else 1e-9
    assert taken.mean == pytest.approx((size - 1) / 2 * unit, rel=bound, abs=0)
    assert taken.std == pytest.approx(math.sqrt((size**2 - 1) / 12) * unit, rel=bound, abs=0)
    square = (size - 1) * (2 * size - 1) / 6
    assert taken.rms == pytest.approx(math.sqrt(square) * unit, rel=bound, abs=0)
    assert taken.absmax == (size - 1) * unit
    assert taken.zero_fraction == pytest.approx(1 / size, abs=2e-5)
    assert taken.nonfinite == 0


@given(
    arrays(np.float32, st.integers(1, 300), elements=FLOATS),
    st.sampled_from([1e-30, 1e-18, 1.0, 1e17, 1e30]),
    st.sampled_from([0.0, 1.0, 300.0]),
)
@settings(deadline=None, max_examples=150)
def test_small_tensors_of_any_scale_and_offset_match_float64(
    values: Any, scale: float, offset: float
) -> None:
    tensor = torch.from_numpy((values + np.float32(offset)) * np.float32(scale))
    exact = tensor.double().numpy()
    alone = stats.moments(tensor, zeros=True)
    packed = Packed([flat(tensor), flat(torch.ones(3))]).moments(zeros=True)[0]
    rms = math.sqrt((exact**2).mean())
    for mean, std, root, absmax, zero, bad in (alone, packed):
        assert mean == pytest.approx(exact.mean(), abs=1e-4 * rms)
        assert std == pytest.approx(exact.std(), rel=1e-4, abs=2e-6 * rms)
        assert root == pytest.approx(rms, rel=1e-4)
        assert absmax == np.abs(exact).max()
        assert zero == (exact == 0).mean()
        assert bad == 0


@pytest.mark.parametrize("size", [20_000, 3_000_000])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_large_tensors_keep_their_stated_bounds(size: int, scale: float, offset: float) -> None:
    tensor = (
        torch.randn(size, generator=torch.Generator().manual_seed(5)).relu_() + offset
    ) * scale
    tensor[12_345] = 50 * scale
    exact = tensor.double().numpy()
    taken = stats.moments(tensor, zeros=True)
    bound = 1e-2 if size > stats.SUBSAMPLE_ABOVE else 1e-4
    assert taken.std == pytest.approx(exact.std(), rel=2 * bound)
    assert taken.rms == pytest.approx(math.sqrt((exact**2).mean()), rel=bound)
    assert taken.mean == pytest.approx(exact.mean(), rel=bound)
    assert taken.zero_fraction == pytest.approx((exact == 0).mean(), abs=bound)
    assert taken.absmax == pytest.approx(exact.max(), rel=1e-6)


DRAWN: dict[str, tuple[float, Callable[[torch.Tensor], torch.Tensor]]] = {
    "uniform": (1.8, lambda u: u - 0.5),
    "two values": (1.0, lambda u: torch.where(u < 0.5, 1.0, -1.0)),
    "exponential": (6.0, lambda u: (u - 0.5).sign() * (1 - (2 * u - 1).abs()).clamp(1e-7).log()),
    "mostly zero": (25.0, lambda u: (u < 0.04).float() * torch.where(u < 0.02, 1.0, -1.0)),
}
"""Kurtosis of a distribution with mean 0, and how it is made of numbers between 0 and 1."""


@pytest.mark.parametrize("name", DRAWN)
def test_the_error_of_a_sub_sample_is_the_one_that_is_stated(name: str) -> None:
    kurtosis, make = DRAWN[name]
    generator = torch.Generator().manual_seed(1)
    size, draws = stats.SUBSAMPLE_ABOVE + 1024, 12
    stated = math.sqrt((kurtosis - 1) / (4 * stats.SUBSAMPLE / 2))
    errors = []
    for _ in range(draws):
        tensor = make(torch.rand(size, generator=generator)).view(-1, 1024)
        exact = float(tensor.double().square().mean().sqrt())
        taken = stats.moments(tensor)
        errors += [float(taken.rms) / exact - 1, float(taken.std) / exact - 1]
    assert max(map(abs, errors)) <= max(4 * stated, 1e-4)
    assert math.sqrt(np.mean(np.square(errors))) <= max(1.3 * stated, 1e-4)


@pytest.mark.parametrize("size", [16_000, 65_536, 131_072, 1_000_000])
def test_two_values_alone_add_up_without_losing_digits(size: int) -> None:
    for value in (0.7, 0.9, 1.1, 1.3):  # rounding errors of like numbers have one sign
        tensor = torch.full((size,), value)
        tensor[::3] *= 0.25
        exact = tensor.double().numpy()
        taken = stats.moments(tensor)
        assert taken.std == pytest.approx(exact.std(), rel=1e-4)
        assert taken.rms == pytest.approx(math.sqrt((exact**2).mean()), rel=1e-4)


def test_the_nonfinite_count_is_exact_in_a_sampled_tensor() -> None:
    tensor = torch.ones(2_000_003)
    tensor[[1, 77, 1_999_999]] = torch.tensor([math.nan, math.inf, -math.inf])
    assert stats.moments(tensor).nonfinite == 3


@pytest.mark.parametrize("distribution", ["normal", "exponential", "uniform"])
def test_quantiles_of_a_sampled_histogram_are_right_within_a_bin(distribution: str) -> None:
    generator = np.random.default_rng(3)
    values = getattr(generator, distribution)(size=(700, 1_000)).astype(np.float32)
    counts = np.asarray(histogram.count(torch.from_numpy(values)))
    cumulated = np.cumsum(counts) / counts.sum()
    for quantile in (0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97):
        found = int(np.searchsorted(cumulated, quantile))
        exact = int(bin_of(np.quantile(values, quantile)))
        # Bins around zero are narrower than the error of the share: compare there by value.
        near = abs(np.mean(values < edges()[found]) - quantile) < 0.03
        assert abs(found - exact) <= 1 or near


CASES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.t(),
    "strided": lambda x: x[::2, 1::3],
    "channels_last": lambda x: x.view(4, 4, 8, 12).to(memory_format=torch.channels_last),
    "expanded": lambda x: x[:1].expand(7, -1),
    "float64": lambda x: x.double() + 1e6,
    "bfloat16": lambda x: x.bfloat16(),
    "float16": lambda x: x.half(),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "conjugated": lambda x: torch.complex(x, 2 * x).conj().imag,
    "scalar": lambda x: x[0, 0],
}


@pytest.mark.parametrize("case", CASES)
def test_tensors_of_every_kind_are_measured(case: str) -> None:
    special = CASES[case](torch.randn(32, 48, generator=torch.Generator().manual_seed(6)))
    exact = special.resolve_neg().double().numpy()
    tensor = plain.plain(special)
    assert tensor is not None
    taken = stats.moments(tensor)
    assert taken.rms == pytest.approx(math.sqrt((exact**2).mean()), rel=1e-4)
    assert taken.std == pytest.approx(exact.std(), rel=1e-4)
    assert np.asarray(histogram.count(tensor)).sum() == exact.size


def test_what_holds_no_real_numbers_is_left_out_and_what_does_is_unpacked() -> None:
    assert plain.plain(torch.arange(3)) is None
    assert plain.plain(torch.zeros(0)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
        compressed = torch.eye(3).to_sparse_csr()
        nested = [
            torch.nested.nested_tensor(
                [torch.tensor([1.0, 2.0]), torch.tensor([3.0])], layout=layout
            )
            for layout in (torch.strided, torch.jagged)
        ]
    assert plain.plain(quantised) is None
    twice = torch.sparse_coo_tensor([[1, 1]], [1.0, 2.0], (4,), check_invariants=True)
    found = plain.plain(twice)
    assert found is not None and found.tolist() == [3.0]
    assert not twice.is_coalesced()
    rows = plain.plain(compressed)
    assert rows is not None and rows.tolist() == [1.0, 1.0, 1.0]
    numbers = plain.plain(torch.tensor([3 + 4j]))
    assert numbers is not None and numbers.flatten().tolist() == [3.0, 4.0]
    for tensor in nested:
        found = plain.plain(tensor)
        assert found is not None and found.tolist() == [1.0, 2.0, 3.0]
    inside: list[Any] = []
    torch.func.grad(lambda x: (inside.append(plain.plain(x)), x.sum())[1])(torch.tensor([5.0]))
    assert inside[0].numpy().tolist() == [5.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_histograms_agree_with_the_reference_bins(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(4000, generator=generator) * 10 ** (
        8 * torch.rand(4000, generator=generator) - 4
    )
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0**-32, -(2.0**-33), 2.0**14, 30000.0])
    tensor = torch.cat([values, special]).to(dtype)
    counts = np.asarray(histogram.count(tensor))
    finite = tensor[torch.isfinite(tensor)].to(torch.float64).numpy()
    assert counts.tolist() == np.bincount(bin_of(finite), minlength=BINS).tolist()


def test_histograms_leave_nonfinite_values_out() -> None:
    tensor = torch.tensor([math.nan, math.inf, -math.inf, 1.0])
    assert np.asarray(histogram.count(tensor)).sum() == 1


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


@pytest.mark.parametrize("size", [3, 1 << 16])
def test_infinite_weights_that_stay_count_as_unchanged(
    recorded: Callable[[], Any], size: int
) -> None:
    model = nn.Linear(size, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    nn.init.constant_(model.weight, math.inf)
    tv.watch(model, optimizer, strict=True)
    model.weight.grad = torch.ones(1, size)
    optimizer.step()
    row = recorded().samples("parameter")[0]["weight"]
    assert (row["unchanged"], row["unchanged_fraction"]) == (1.0, 1.0)


@pytest.mark.parametrize("size", [4_096, 4_097, 8_191, 8_192, 12_289, 20_000, 1 << 15])
def test_at_least_half_as_many_elements_are_counted_as_where_sub_sampling_begins(size: int) -> None:
    tensor = torch.ones(size)
    alone = int(histogram.here(histogram.count(tensor)).sum())
    together = int(Packed([flat(tensor)]).histograms().sum())
    assert min(alone, together) >= min(size, histogram.SUBSAMPLE_ABOVE) / 2
    assert max(alone, together) <= 2 * histogram.SUBSAMPLE_ABOVE


@pytest.mark.parametrize(
    "shape", [(3000, 3), (96, 96), (1500, 7), (1000, 15), (128, 120), (200, 25), (4, 5, 7, 11, 13)]
)
def test_a_sub_sample_meets_every_column_alike(shape: tuple[int, ...]) -> None:
    width = shape[-1]
    columns = torch.arange(width) % 3 - 1.0  # in three bins
    tensor = columns.expand(shape).contiguous()
    counts = Packed([flat(tensor)]).histograms()[0]
    shares = counts[counts > 0] / counts.sum()
    expected = torch.unique(columns, return_counts=True)[1].numpy() / width
    assert shares == pytest.approx(expected, abs=0.01)


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
        torch.randn(6000, generator=generator),
    ]
    packed = Packed([flat(tensor) for tensor in tensors])
    together = zip(tensors, packed.moments(zeros=True), packed.histograms(), strict=True)
    for tensor, taken, counts in together:
        alone = stats.moments(tensor, zeros=True)
        assert taken == pytest.approx(alone, rel=1e-4, abs=1e-6, nan_ok=True)
        if tensor.numel() <= histogram.SUBSAMPLE_ABOVE:
            assert counts.tolist() == np.asarray(histogram.count(tensor)).tolist()
        else:
            assert 2_048 <= counts.sum() <= 2 * histogram.SUBSAMPLE_ABOVE


def statistics_of(model: nn.Module, *more: Any) -> tuple[StepStatistics, Draft]:
    """Statistics round the next step of `model`, with the draft that they fill."""
    rows, draft, registry = Rows(), Draft(0, True), Registry()
    registry.add(model, (), ())
    registry.place_parameters(rows, set())
    parameters = list(registry.parameters.values())
    return StepStatistics(Members(parameters, rows, *more), draft, True), draft


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("wide", [30, 200])
def test_the_adam_factor_is_the_update_in_units_of_the_learning_rate(
    wide: int, decay: float
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(wide, wide)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=decay)
    for _ in range(4):
        before = model.weight.detach().double().clone()
        optimizer.zero_grad()
        model(torch.randn(8, wide)).square().sum().backward()
        statistics, draft = statistics_of(model, optimizer)
        statistics.take_gradients()
        optimizer.step()
        statistics.finish()
        moved = model.weight.detach().double() - before * (1 - 1e-2 * decay)
        block = draft.blocks["parameter", COLUMN["update_ratio"]]
        columns = dict(zip(block.rows, block.values, strict=True))
        *_, factor, ruled_by_eps = columns[0]
        bound = 1e-3 if wide == 30 else 5e-2
        assert factor == pytest.approx(float(moved.square().mean().sqrt()) / 1e-2, rel=bound)
        assert ruled_by_eps == 0.0
        assert math.isnan(columns[1][-2])  # of a bias it is not taken


def test_elements_ruled_by_the_eps_of_adam_are_counted() -> None:
    model = nn.Linear(4, 2, bias=False)
    optimizer = torch.optim.Adam(model.parameters())
    model.weight.grad = torch.tensor([[1e-9] * 4, [1.0] * 4])
    statistics, draft = statistics_of(model, optimizer)
    statistics.take_gradients()
    optimizer.step()
    statistics.finish()
    (values,) = draft.blocks["parameter", COLUMN["update_ratio"]].values
    assert values[-1] == 0.5


def test_bfloat16_weights_that_lose_their_update_show_it(recorded: Callable[[], Any]) -> None:
    model = nn.Linear(40, 30, bias=False).to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-4)
    tv.watch(model, optimizer, strict=True)
    before = model.weight.detach().clone()
    model(torch.ones(1, 40, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    expected = float((model.weight == before).double().mean())
    row = recorded().samples("parameter")[0]["weight"]
    assert 0.1 < expected < 1
    assert row["unchanged_fraction"] == pytest.approx(expected)
    assert row["unchanged"] == 0.0


@pytest.mark.parametrize("wide", [40, 400])
def test_gradients_are_taken_once_and_unscaled(wide: int) -> None:
    model = nn.Linear(wide, wide, bias=False)
    model(torch.randn(3, wide)).sum().backward()
    gradient = model.weight.grad
    assert gradient is not None
    exact = gradient.double().clone()
    statistics, draft = statistics_of(model)
    gradient *= 1024.0
    statistics.take_gradients(torch.tensor(1024.0))
    gradient.zero_()
    statistics.take_gradients()
    statistics.finish()
    rms, std, absmax, _ = draft.blocks["parameter", COLUMN["grad_rms"]].values[0]
    assert rms == pytest.approx(float(exact.square().mean().sqrt()), rel=1e-4)
    assert std == pytest.approx(float(exact.std(correction=0)), rel=1e-4)
    assert absmax == pytest.approx(float(exact.abs().max()), rel=1e-6)
    ((_, counts),) = draft.counts["gradient"]
    share = np.asarray(counts)[0] / np.asarray(counts).sum()
    reference = np.bincount(bin_of(exact.numpy()).ravel(), minlength=BINS) / exact.numel()
    assert np.abs(np.cumsum(share) - np.cumsum(reference)).max() < 0.026


def test_no_gradient_is_held_beyond_the_sampled_step(recorded: Callable[[], Any]) -> None:
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters())
    tv.watch(model, optimizer, interval=1, strict=True)
    gone: list[weakref.ref[torch.Tensor]] = []
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 8)).sum().backward()
        gone += [weakref.ref(tensor.grad) for tensor in model.parameters()]
        optimizer.step()
    optimizer.zero_grad()
    model(torch.randn(5, 8)).sum().backward()
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)
    assert len(recorded().samples("parameter")) == 3
