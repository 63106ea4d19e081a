"""A finding tells of the onset: not again while it stays broken, and again after a recovery."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nonfinite.bench import Fault, cross_entropy, features, sgd, spoil, spoil_gradient
from nonfinite.models import mlp
from torch import Tensor, nn

import trainvitals.hooks as tv

Act = Callable[[Tensor], Tensor]


class Stand:
    """A training whose faults are switched on by hand, and whose weights can be kept from breaking."""

    def __init__(self, act: Act, restore: bool = True) -> None:
        self.fault = Fault(act)
        self.model = mlp(self.fault)
        self.optimizer = sgd(self.model.parameters())
        self.restore = restore
        tv.watch(self.model, self.optimizer, strict=True)

    def step(self, act: Act | None = None) -> None:
        """One step, with this fault in it."""
        self.fault.on = act is not None
        self.fault.act = act or self.fault.act
        kept = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.optimizer.zero_grad()
        cross_entropy(self.model(features(False)), False).backward()
        self.optimizer.step()
        if self.restore:
            with torch.no_grad():
                for parameter, weight in zip(self.model.parameters(), kept, strict=True):
                    parameter.copy_(weight)

    def steps(self, count: int, acts: dict[int, Act]) -> None:
        for index in range(count):
            self.step(acts.get(index))


def told(found: Any) -> list[tuple[int, str, str]]:
    return [(step, data["direction"], data.get("layer", "")) for step, data in found()]


def test_a_fault_over_several_steps_is_told_once(found: Any) -> None:
    stand = Stand(spoil)
    stand.steps(50, dict.fromkeys(range(20, 40), spoil))
    assert [step for step, _, _ in told(found)] == [20]


def test_each_onset_after_a_recovery_is_told(found: Any) -> None:
    stand = Stand(spoil)
    stand.steps(50, {3: spoil, 4: spoil, 12: spoil, 30: spoil})
    assert told(found) == [
        (3, "forward", "middle"),
        (12, "forward", "middle"),
        (30, "forward", "middle"),
    ]


def test_a_broken_update_that_is_undone_before_the_next_loss_is_told_where_it_was_sampled(
    found: Any,
) -> None:
    """Between samples it is the next loss that tells of a step's harm, and here there is none left."""
    stand = Stand(spoil_gradient)
    stand.steps(50, {1: spoil_gradient, 41: spoil_gradient})
    assert [step for step, direction, _ in told(found) if direction == "backward"] == [1]


def test_one_good_step_is_a_recovery(found: Any) -> None:
    stand = Stand(spoil)
    stand.steps(50, {30: spoil, 32: spoil, 34: spoil})
    assert [step for step, _, _ in told(found)] == [30, 32, 34]


@pytest.mark.parametrize("step", [0, 7, 41])
def test_a_bad_loss_is_told_though_a_scaler_skips_its_step(found: Any, step: int) -> None:
    """The scaler forgives gradients that overflow; a forward pass that is NaN by itself is not its doing."""
    model = mlp(Fault(spoil))
    fault: Any = model.middle
    optimizer = sgd(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    tv.watch(model, optimizer, strict=True)
    for index in range(step + 4):
        fault.on = index == step
        optimizer.zero_grad()
        scaler.scale(cross_entropy(model(features(False)), False)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert told(found) == [(step, "forward", "middle")]


def test_a_run_that_is_watched_again_goes_on_telling(found: Any) -> None:
    model = mlp(Fault(spoil))
    fault: Any = model.middle
    optimizer = sgd(model.parameters())

    def train(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            cross_entropy(model(features(False)), False).backward()
            optimizer.step()

    tv.watch(model, optimizer, strict=True)
    train(5)
    tv.detach()
    train(5)
    tv.watch(model, optimizer, strict=True)
    train(5)
    fault.on = True
    train(1)
    assert told(found) == [(10, "forward", "middle")]


def test_a_weight_broken_before_it_is_watched_is_told_at_the_first_step(found: Any) -> None:
    model = mlp(nn.Identity())
    with torch.no_grad():
        model.hidden.weight[0, 0] = math.nan
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(model(features(False)), False).backward()
        optimizer.step()
    ((step, data),) = found()
    assert (step, data["direction"], data["parameter"]) == (0, "parameter", "hidden.weight")


@pytest.mark.parametrize("step", [0, 7, 41])
def test_a_training_that_gives_up_at_its_loss_is_told_where_it_arose(found: Any, step: int) -> None:
    fault = Fault(spoil)
    model = mlp(fault)
    optimizer = sgd(model.parameters())
    tv.watch(model, optimizer, strict=True)
    for index in range(step + 1):
        fault.on = index == step
        optimizer.zero_grad()
        loss = cross_entropy(model(features(False)), False)
        if not loss.isfinite():
            break
        loss.backward()
        optimizer.step()
    ((at, data),) = found()
    assert (at, data["direction"], data["layer"]) == (step, "forward", "middle")
