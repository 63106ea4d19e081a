"""Which step a number belongs to, under the training loops that people write."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trainvitals.hooks as tv


def net() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def loss_of(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.zeros(16, dtype=torch.long))


def test_a_value_logged_after_the_step_belongs_to_that_step(recorded: Any, train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    losses = train(model, optimizer, 5, after=lambda loss: tv.log({"loss": loss}))
    run = recorded()
    assert run.scalar_records("loss") == list(enumerate(losses))
    assert sorted(run.scalar("tv/grad_norm")) == [0, 1, 2, 3, 4]


def test_a_value_logged_before_the_step_belongs_to_the_coming_step(recorded: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    losses = []
    for _ in range(4):
        loss = loss_of(model)
        losses.append(loss.item())
        tv.log({"loss": loss})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert recorded().scalar_records("loss") == list(enumerate(losses))


def test_an_explicit_step_is_kept(recorded: Any) -> None:
    tv.init()
    tv.log({"eval/accuracy": 0.5}, step=700)
    assert recorded().scalar("eval/accuracy") == {700: 0.5}


def test_a_key_logged_twice_makes_two_records(recorded: Any, train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 1)
    tv.log({"loss": 1.0})
    tv.log({"loss": 2.0})
    assert recorded().scalar_records("loss") == [(0, 1.0), (0, 2.0)]


def test_what_was_logged_is_not_changed_by_what_happens_to_it_later(
    recorded: Any, train: Any
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    values: dict[str, Any] = {"number": 0.0, "tensor": torch.zeros(())}

    def log(_: Any) -> None:
        tv.log(values)
        values["number"] += 1.0
        values["tensor"] += 2.0

    train(model, optimizer, 6, after=log)
    run = recorded()
    assert run.scalar("number") == {step: float(step) for step in range(6)}
    assert run.scalar("tensor") == {step: 2.0 * step for step in range(6)}


def test_keys_of_before_and_after_the_step_may_be_logged_together(
    recorded: Any, train: Any
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    tv.log({"before": 0.0})
    count = iter(range(1, 5))

    def log(_: Any) -> None:
        value = float(next(count))
        tv.log({"after": value, "before": value})

    train(model, optimizer, 4, after=log)
    run = recorded()
    assert run.scalar("after") == {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}
    assert run.scalar("before") == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}


@pytest.mark.parametrize("step", [2.5, 2**53 + 1, "7"])
def test_a_step_that_is_none_is_reported_and_harms_nothing_else(
    recorded: Any, step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tv.init()
    tv.log({"loss": 1.0}, step=step)
    tv.log({"loss": 2.0}, step=np.int64(5))
    run = recorded()
    assert run.scalar_records("loss") == [(5, 2.0)]
    assert len(run.events("monitor")) == 1
    assert "log failed" in capsys.readouterr().err


def test_more_scalars_than_a_record_holds_are_all_recorded(recorded: Any) -> None:
    tv.init()
    values = {f"m{number}": float(number) for number in range(2_500)}
    for _ in range(2):
        tv.log(values)
    run = recorded()
    assert all(run.scalar_records(name) == [(0, value)] * 2 for name, value in values.items())


def test_every_kind_of_number_can_be_logged(recorded: Any) -> None:
    tv.init()
    values = {
        "float": 1.5,
        "int": 2,
        "bool": True,
        "numpy": np.float32(3.5),
        "tensor": torch.tensor([4.5], requires_grad=True),
        "nan": float("nan"),
    }
    tv.log(values)
    run = recorded()
    assert run.scalar("float")[0] == 1.5
    assert run.scalar("int")[0] == 2.0
    assert run.scalar("bool")[0] == 1.0
    assert run.scalar("numpy")[0] == 3.5
    assert run.scalar("tensor")[0] == 4.5
    assert np.isnan(run.scalar("nan")[0])


def test_something_that_is_no_number_is_reported_and_left_out(
    recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tv.init()
    tv.log({"text": "high", "loss": 1.0, "many": torch.zeros(3)})
    run = recorded()
    assert run.scalar("loss") == {0: 1.0}
    assert len(run.events("monitor")) == 2
    assert "expected a number" in capsys.readouterr().err


def test_accumulation_counts_optimizer_steps(recorded: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    for index in range(12):
        loss_of(model).backward()
        if index % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    run = recorded()
    assert sorted(run.scalar("tv/grad_norm")) == [0, 1, 2]
    assert run.samples("activation")[0]["0"]["absmax"] > 0


def test_another_models_optimizer_does_not_count(recorded: Any, train: Any) -> None:
    model, other = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(other, torch.optim.SGD(other.parameters(), lr=0.1), 3)
    train(model, optimizer, 2)
    assert sorted(recorded().scalar("tv/grad_norm")) == [0, 1]


def test_an_optimizer_that_was_not_passed_is_found_when_it_steps(recorded: Any, train: Any) -> None:
    model = net()
    tv.watch(model, strict=True)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    run = recorded()
    assert sorted(run.scalar("tv/lr/0")) == [0, 1]
    assert all(row.in_optimizer for row in run.layouts("parameter")[-1].rows)


@pytest.mark.parametrize("critic_first", [True, False])
def test_two_optimizers_share_one_step(recorded: Any, critic_first: bool) -> None:
    generator, critic = net(), nn.Linear(4, 1)
    steps_g = torch.optim.SGD(generator.parameters(), lr=0.1)
    steps_c = torch.optim.SGD(critic.parameters(), lr=0.2)
    tv.watch([generator, critic], [steps_g, steps_c], interval=1, strict=True)

    def train_critic() -> None:
        steps_c.zero_grad()
        critic(generator(torch.randn(8, 8)).detach()).mean().backward()
        steps_c.step()

    def train_generator() -> None:
        steps_g.zero_grad()
        critic(generator(torch.randn(8, 8))).mean().backward()
        steps_g.step()

    order = [train_critic, train_generator]
    for _ in range(4):
        for act in order if critic_first else order[::-1]:
            act()
    run = recorded()
    assert sorted(run.scalar("tv/grad_norm")) == [0, 1, 2, 3]
    assert run.scalar("tv/lr/1")[2] == 0.2
    assert set(run.scalar("tv/grad_carried").values()) == {0.0}
    samples = run.samples("parameter")
    for step in range(4):
        assert samples[step]["0.weight"]["update_ratio"] > 0
        assert samples[step]["model1.weight"]["update_ratio"] > 0
    assert all(row.in_optimizer for row in run.layouts("parameter")[-1].rows)


def test_two_optimizers_of_one_model_share_one_step(recorded: Any, train: Any) -> None:
    model = net()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.Adam(model[2].parameters(), lr=0.1)
    tv.watch(model, [first, second], interval=1, strict=True)
    for _ in range(3):
        model.zero_grad()
        loss_of(model).backward()
        first.step()
        second.step()
    run = recorded()
    samples = run.samples("parameter")
    assert sorted(samples) == [0, 1, 2]
    for rows in samples.values():
        assert all(row["update_ratio"] > 0 for row in rows.values())


def test_a_closure_is_measured_where_it_left_the_gradients(recorded: Any) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
    tv.watch(model, optimizer, interval=1, strict=True)
    inputs, targets = torch.randn(32, 4), torch.randn(32, 1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    run = recorded()
    norms = run.scalar("tv/grad_norm")
    assert sorted(norms) == [0, 1, 2]
    assert norms[0] > 0
    assert run.samples("parameter")[0]["weight"]["grad_rms"] > 0


@pytest.mark.parametrize("interval", [None, 10])
@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=1e-6),
        lambda parameters: torch.optim.LBFGS(parameters, lr=1e-6, max_iter=2),
    ],
    ids=["sgd", "lbfgs"],
)
def test_the_step_of_a_closure_counts_though_its_loss_stands_out(
    make: Callable[[Any], torch.optim.Optimizer], interval: int | None
) -> None:
    model = net()
    optimizer = make(model.parameters())
    run = tv.watch(model, optimizer, interval=interval, strict=True)
    for step in range(60):
        inputs = torch.randn(16, 8) * (300.0 if step in (40, 45, 50) else 1.0)

        def closure(inputs: torch.Tensor = inputs) -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
    assert run.completed == 60


def test_evaluation_passes_are_not_sampled(recorded: Any, train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    with torch.no_grad():
        model(torch.full((1, 8), 1e6))
    train(model, optimizer, 1)
    assert recorded().samples("activation")[0]["0"]["absmax"] < 1e3


def test_a_layer_unfrozen_later_changes_the_layout(recorded: Any, train: Any) -> None:
    model = net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 3)
    model[0].requires_grad_(True)
    train(model, optimizer, 6)
    layouts = recorded().layouts("parameter")
    assert [layout.rows[0].trainable for layout in layouts] == [False, True]


def test_a_module_added_later_gets_its_rows(recorded: Any, train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 2)
    model.append(nn.Linear(4, 4))
    optimizer.add_param_group({"params": model[3].parameters()})
    train(model, optimizer, 8)
    run = recorded()
    assert [row.name for row in run.layouts("parameter")[-1].rows][-2:] == ["3.weight", "3.bias"]
    assert run.samples("activation")[9]["3"]["absmax"] > 0
    assert run.samples("parameter")[9]["3.weight"]["update_ratio"] > 0


def test_include_and_exclude_choose_the_rows(recorded: Any, train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, include="[02]*", exclude=["*.bias"], strict=True)
    train(model, optimizer, 1)
    run = recorded()
    assert [row.name for row in run.layouts("activation")[-1].rows] == ["0", "2"]
    assert [row.name for row in run.layouts("parameter")[-1].rows] == ["0.weight", "2.weight"]


def test_watching_the_same_model_again_replaces(recorded: Any, train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 2)
    tv.watch(model, optimizer, interval=1, strict=True)
    train(model, optimizer, 2)
    run = recorded()
    assert [step for step, _ in run.scalar_records("tv/grad_norm")] == [0, 1, 2, 3]
    assert {row.name for row in run.layouts("activation")[-1].rows} == {"0", "1", "2"}


def test_a_second_init_finishes_the_first_run() -> None:
    first = tv.init(name="one")
    second = tv.init(name="two")
    assert first.finished and not second.finished
    assert first.id != second.id


def test_waiting_for_data_is_measured(recorded: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    for (inputs,) in DataLoader(TensorDataset(torch.randn(12, 8)), 4):
        optimizer.zero_grad()
        model(inputs).sum().backward()
        optimizer.step()
    waits = recorded().scalar("tv/data_wait")
    assert sorted(waits) == [0, 1, 2]
    assert all(wait > 0 for wait in waits.values())


def test_criterion_gives_loss_and_labels(recorded: Any) -> None:
    model, criterion = net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, criterion=criterion, strict=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, -100])
    optimizer.zero_grad()
    loss = criterion(model(torch.randn(9, 8)), labels)
    loss.backward()
    optimizer.step()
    run = recorded()
    assert run.scalar("tv/loss")[0] == pytest.approx(loss.item())
    assert run.scalar("tv/label_entropy")[0] == pytest.approx(np.log(4))
    assert run.scalar("tv/label_classes")[0] == 4
    assert run.scalar("tv/label_count")[0] == 8


def test_real_valued_labels_give_their_variance(recorded: Any, train: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tv.watch(model, optimizer, interval=1, strict=True)
    batches = [torch.randn(50) * 3 + 1000 for _ in range(4)]
    for labels in batches:
        tv.batch(None, labels)
        train(model, optimizer, 1)
    variance = recorded().scalar("tv/label_variance")[3]
    assert variance == pytest.approx(torch.cat(batches).double().var(correction=0).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "net"}, "torch.nn.Module; got str"),
        ({"optimizer": 3}, "torch.optim.Optimizer"),
        ({"overhead": 0}, "overhead is a share"),
        ({"interval": 0}, "interval is a number of steps"),
        ({"criterion": nn.functional.cross_entropy}, "criterion must be a module"),
        ({"include": [3]}, "include takes globs"),
    ],
)
def test_wrong_arguments_raise_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        tv.watch(**{"model": net(), **arguments})


def test_carried_gradients(recorded: Callable[[], Any]) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tv.watch(model, optimizer, interval=1, strict=True)
    for step in range(9):
        if step < 3:  # as it should be
            optimizer.zero_grad()
            loss_of(model).backward()
        elif step < 6:  # accumulation of two
            optimizer.zero_grad(set_to_none=False)
            loss_of(model).backward()
            loss_of(model).backward()
        else:  # zero_grad forgotten
            loss_of(model).backward()
        optimizer.step()
    carried = recorded().scalar("tv/grad_carried")
    assert carried == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 1, 7: 1, 8: 1}


def test_the_step_of_a_loss_that_stands_out_is_looked_at(recorded: Any) -> None:
    """Between samples, too: its gradients and update are seen though its activations went by."""
    torch.manual_seed(2)
    model = nn.Linear(400, 400)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    tv.watch(model, optimizer, strict=True)
    for step in range(1200):
        optimizer.zero_grad()
        inputs = torch.ones(2, 400) * (100.0 if step == 1111 else 1.0)
        model(inputs).square().mean().backward()
        optimizer.step()
    run = recorded()
    usual = run.scalar("tv/grad_norm")[0]
    assert run.scalar("tv/grad_norm")[1111] > 1_000 * usual
    assert run.samples("parameter")[1111]["weight"]["grad_rms"] > 0


@pytest.mark.parametrize("clipped", ["", "together", "one by one"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_optimizers_that_step_after_a_quiet_step_was_counted_are_not_taken_for_the_next_step(
    recorded: Callable[[], Any], order: tuple[int, ...], clipped: str
) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 6) for _ in range(3)]
    model = nn.Sequential(*layers)
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.05) for layer in layers]
    tv.watch(model, optimizers, interval=20, strict=True)
    expected: dict[int, list[tuple[float, float]]] = {}
    norms: dict[int, float] = {}
    for step in range(65):
        model.zero_grad()
        model(torch.randn(8, 6)).square().mean().backward()
        weights = [layer.weight.detach().double().norm().item() / 6 for layer in layers]
        given = [[p.grad.double().norm().item() for p in layer.parameters()] for layer in layers]
        expected[step] = [(w, g[0] / 6) for w, g in zip(weights, given, strict=True)]
        norms[step] = math.hypot(*(norm for each in given for norm in each))
        if clipped == "together":
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        for place in order:
            if clipped == "one by one":
                nn.utils.clip_grad_norm_(layers[place].parameters(), 1e-3)
            optimizers[place].step()
    run = recorded()
    samples = run.samples("parameter")
    assert sorted(samples) == [0, 20, 40, 60]
    for step, rows in samples.items():
        found = [
            (rows[f"{i}.weight"]["weight_rms"], rows[f"{i}.weight"]["grad_rms"]) for i in range(3)
        ]
        for pair, exact in zip(found, expected[step], strict=True):
            assert pair == pytest.approx(exact, rel=1e-4)
        assert run.scalar("tv/grad_norm")[step] == pytest.approx(norms[step], rel=1e-4)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("size", [6, 300])  # measured together, and one by one
@pytest.mark.parametrize("turns", [(5, 15), (1,)])
def test_clipped_gradients_of_an_optimizer_that_leaves_its_turn_out_are_those_of_their_step(
    recorded: Callable[[], Any], size: int, late: bool, turns: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(size, size) for _ in range(2)]
    model = nn.Sequential(*layers)
    often, seldom = (torch.optim.SGD(layer.parameters(), lr=0.05) for layer in layers)
    tv.watch(model, [often, seldom], interval=10, strict=True)
    expected: list[tuple[float, float]] = []
    for step in range(25):
        model.zero_grad()
        model(torch.randn(8, size)).square().mean().backward()
        weight = layers[1].weight
        sizes = [each.double().norm().item() / size for each in (weight.grad, weight.detach())]
        expected.append((sizes[0], sizes[1]))
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizers = [often, seldom] if late else [seldom, often]
        for optimizer in optimizers:
            if optimizer is often or step in turns:
                optimizer.step()
    samples = recorded().samples("parameter")
    assert sorted(samples) == [0, 10, 20]
    for step in samples:
        row = samples[step]["1.weight"]
        assert (row["grad_rms"], row["weight_rms"]) == pytest.approx(expected[step], rel=1e-4)
