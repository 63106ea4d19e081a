"""Training set-ups that hooks are known to stumble over: compile, checkpointing, wrappers, shared modules."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import trainvitals.hooks as tv


def net() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


@pytest.mark.slow
@pytest.mark.parametrize("watch_first", [True, False])
def test_a_compiled_model_trains_the_same_and_keeps_its_graph(
    recorded: Any, train: Any, watch_first: bool
) -> None:
    plain = net()
    expected = train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), 8)
    torch._dynamo.reset()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    if watch_first:
        tv.watch(model, optimizer, interval=1, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        if not watch_first:
            tv.watch(compiled, optimizer, interval=1, strict=True)
        losses = train(compiled, optimizer, 8)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert len(graphs) == 1
    run = recorded()
    names = [row.name for row in run.layouts("parameter")[-1].rows]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(run.scalar("tv/grad_norm")) == 8
    assert run.samples("parameter")[6]["0.weight"]["update_ratio"] > 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_counted_once(recorded: Any, reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner = nn.Linear(8, 8), net()

        def forward(self, inputs: torch.Tensor) -> Any:
            return checkpoint(self.inner, self.first(inputs), use_reentrant=reentrant)

    model = Checkpointed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).sum().backward()
        optimizer.step()
    samples = recorded().samples("activation")
    assert set(samples[2]) >= {"first", "inner.0", "inner.1", "inner.2"}
    assert samples[2]["inner.1"]["dead_positions"] == 3 * 4


def test_a_shared_layer_counts_with_its_first_call(recorded: Any) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.again = self.layer

        def forward(self, inputs: torch.Tensor) -> Any:
            return self.again(self.layer(inputs) * 1000)

    model = Shared()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    inputs = torch.randn(4, 4)
    first = model.layer(inputs).abs().max().item()
    model(inputs).sum().backward()
    optimizer.step()
    run = recorded()
    assert run.samples("activation")[0]["layer"]["absmax"] == pytest.approx(first)
    assert [row.name for row in run.layouts("parameter")[0].rows] == ["layer.weight", "layer.bias"]


def test_a_container_that_passes_its_last_output_on_has_no_row(recorded: Any, train: Any) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True)), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 1)
    assert [row.name for row in recorded().layouts("activation")[0].rows] == ["0.0", "0.1", "1"]


def test_names_are_those_of_the_model_inside_its_wrapper(recorded: Any, train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(nn.DataParallel(model), optimizer, strict=True)
    train(model, optimizer, 1)
    assert recorded().layouts("parameter")[0].rows[0].name == "0.weight"


def test_an_optimizer_inside_a_wrapper_is_found(recorded: Any, train: Any) -> None:
    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, Wrapper(optimizer), strict=True)
    train(model, optimizer, 2)
    assert len(recorded().scalar("tv/grad_norm")) == 2


class Lookahead(torch.optim.Optimizer):
    """As it is often written: an Optimizer that was never initialized as one, round one of any name."""

    def __init__(self, **inner: torch.optim.Optimizer) -> None:
        vars(self).update(inner)
        self.inner = next(iter(inner.values()))

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


def test_the_only_optimizer_that_a_wrapper_keeps_is_found_by_any_name(
    recorded: Any, train: Any
) -> None:
    model = net()
    wrapper = Lookahead(base=torch.optim.SGD(model.parameters(), lr=0.1))
    tv.watch(model, wrapper, strict=True)
    train(model, wrapper, 2)
    assert len(recorded().scalar("tv/grad_norm")) == 2


def test_a_wrapper_of_several_optimizers_is_told_to_give_them(recorded: Any) -> None:
    model = net()
    one, other = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
    with pytest.raises(TypeError, match="give the optimizer that it wraps"):
        tv.watch(model, Lookahead(one=one, other=other))


@pytest.mark.parametrize("interval", [1, 100])
def test_an_optimizer_made_anew_in_mid_training_counts_on(
    recorded: Any, train: Any, interval: int
) -> None:
    model = net()
    tv.watch(model, optimizer := torch.optim.SGD(model.parameters(), lr=0.1), interval=interval)
    train(model, optimizer, 7)
    train(model, torch.optim.Adam(model.parameters(), lr=0.003), 94)
    run = recorded()
    steps = run.scalar("tv/grad_norm")
    assert sorted(steps)[-1] == 100
    assert len(steps) >= 101 // interval
    assert {step for step, rate in run.scalar("tv/lr/0").items() if rate == 0.1} <= set(range(7))
    assert run.scalar("tv/lr/0")[100] == 0.003
    row = run.samples("parameter")[100]["0.weight"]
    assert row["adam_update_factor"] > 0 and row["update_ratio"] > 0


@pytest.mark.parametrize("interval", [1, 100])
def test_optimizers_of_an_inner_loop_stand_in_for_the_outer_one_once_at_most(
    recorded: Any, train: Any, interval: int
) -> None:
    model = net()
    outer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, outer, interval=interval, strict=True)
    for _ in range(50):
        train(model, torch.optim.SGD(model.parameters(), lr=0.2), 3)
        train(model, outer, 1)
    run = recorded()
    steps = sorted(run.scalar("tv/lr/0"))
    assert steps[-1] <= 52
    rates = {step: rate for step, rate in run.scalar("tv/lr/0").items() if step > 3}
    assert set(rates.values()) <= {0.1}
    assert run.scalar("tv/lr/1") == {}


class Outer(torch.optim.Optimizer):
    """Steps another optimizer, then moves all weights on by 0.5."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups[0]["params"], {})
        self.inner = inner

    def step(self, closure: Any = None) -> None:
        self.inner.step()
        with torch.no_grad():
            for weight in self.param_groups[0]["params"]:
                weight += 0.5


@pytest.mark.parametrize("passed", ["outer", "inner"])
def test_a_step_inside_of_another_counts_as_one_and_all_that_it_moves(
    recorded: Any, train: Any, passed: str
) -> None:
    model = net()
    inner = torch.optim.SGD(model.parameters(), lr=1e-6)
    outer = Outer(inner)
    tv.watch(model, outer if passed == "outer" else inner, interval=50, strict=True)
    before: list[float] = []
    for step in range(101):
        if step == 100:
            before.append(float(model[2].weight.detach().double().norm()))
        train(model, outer, 1)
    run = recorded()
    assert sorted(run.samples("parameter")) == [0, 50, 100]
    ratio = run.samples("parameter")[100]["2.weight"]["update_ratio"]
    assert ratio == pytest.approx(0.5 * 24**0.5 / before[0], rel=1e-3)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use of it
@pytest.mark.parametrize("interval", [1, 100])
def test_transforms_of_functions_beside_the_training_are_left_alone(
    recorded: Any, train: Any, interval: int
) -> None:
    model, criterion = net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, criterion=criterion, interval=interval, strict=True)
    own = dict(model.named_parameters())
    inputs, labels = torch.randn(5, 8), torch.arange(5) % 4

    def loss(weights: dict[str, torch.Tensor], sample: Any, label: Any) -> Any:
        return criterion(torch.func.functional_call(model, weights, (sample,)), label)

    for _ in range(12):
        directions = ({name: torch.ones_like(weight) for name, weight in own.items()},)
        torch.func.jvp(lambda weights: loss(weights, inputs, labels), (own,), directions)
        torch.func.hessian(lambda bias: loss({**own, "2.bias": bias}, inputs, labels))(
            own["2.bias"]
        )
        with torch.no_grad():
            of_each = torch.func.vmap(model)(inputs)
        train(model, optimizer, 1)
    assert of_each.shape == (5, 4)
    run = recorded()
    assert run.events("monitor") == []
    assert sorted(run.samples("activation")) == (list(range(12)) if interval == 1 else [0])


def test_half_precision_training_is_measured(recorded: Any, train: Any) -> None:
    model = net().to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 8, dtype=torch.bfloat16)).float().sum().backward()
        optimizer.step()
    run = recorded()
    assert run.scalar("tv/grad_norm")[1] > 0
    assert run.samples("parameter")[0]["2.bias"]["grad_rms"] == pytest.approx(4.0)


@pytest.mark.slow
def test_worker_processes_do_not_disturb_the_run(recorded: Any) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    loader = DataLoader(TensorDataset(torch.randn(16, 8)), 4, num_workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for (inputs,) in loader:
            optimizer.zero_grad()
            model(inputs).sum().backward()
            optimizer.step()
    run = recorded()
    assert [record.seq for record in run.records] == list(range(len(run.records)))
    assert sorted(run.scalar("tv/data_wait")) == [0, 1, 2, 3]
    assert run.end.status == "finished"
