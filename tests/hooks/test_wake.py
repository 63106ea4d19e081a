"""What looks cost beside our own work: learnt from the steps that follow, as far as these can tell."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

import trainvitals.hooks as tv
from trainvitals.hooks.pace import Pace
from trainvitals.hooks.wake import ENOUGH, FIRST, LONGEST, SELDOM, USUAL, Wake

Excess = Callable[[int], float]


class Training:
    """Steps of a fixed time; the steps from a look on take longer by what is given for each, the look's own first."""

    def __init__(self, excesses: Iterable[float], noise: Excess = lambda step: 0.0) -> None:
        self.now = 0.0
        self.wake = Wake(self._read)
        self.readings = 0
        self._excesses, self._noise = list(excesses), noise
        self._step = 0

    def _read(self) -> float:
        self.readings += 1
        return self.now

    def look(self, wait: int, sampled: bool = True, disturb: int = 0) -> "Training":
        """One look, and quiet steps up to the next one; `disturb`: the quiet step in which something else happens."""
        planned = self._step + wait
        self.wake.begin(self._step)
        for place in range(wait):
            self.now += 1e-3 + self._noise(self._step)
            self.now += self._excesses[place] if place < len(self._excesses) else 0.0
            if place == 0:
                self.wake.looked(sampled)
            elif place == disturb:
                self.now += 1.0
                self.wake.abandon()
            self._step += 1
            if self._step < planned:
                self.wake.next_reading(self._step, planned)
        return self

    def looks(self, count: int, wait: int = 40, sampled: bool = True) -> "Training":
        for _ in range(count):
            self.look(wait, sampled)
        return self


def test_what_the_look_and_the_steps_after_it_take_longer_is_learnt() -> None:
    training = Training([2e-4, 3e-4, 1e-4]).looks(ENOUGH)
    assert training.wake.seconds(True) == pytest.approx(6e-4)


@pytest.mark.parametrize("wait", [6, 10, 17, 18, 500])
def test_windows_fit_between_two_looks(wait: int) -> None:
    """The shortest is two steps: with the look's own step and two after it, all of this excess is in the first one."""
    training = Training([1e-4, 3e-4, 1e-4]).looks(2 * ENOUGH, wait)
    assert training.wake.seconds(True) == pytest.approx(5e-4)


def test_looks_close_to_each_other_are_not_followed() -> None:
    training = Training([1e-3, 1e-3]).looks(50, wait=5)
    assert training.wake.seconds(True) == USUAL
    assert training.readings == 50  # where each of them began


def test_nothing_is_believed_before_there_are_enough() -> None:
    training = Training([1e-3]).looks(ENOUGH - 1)
    assert training.wake.seconds(True) == USUAL
    assert training.look(40).wake.seconds(True) == pytest.approx(1e-3)


def test_noise_of_slow_steps_is_not_believed() -> None:
    """Steps that differ by 10 ms: what they tell of a fraction of a millisecond is nothing."""
    for seed in range(20):
        draw = random.Random(seed)
        training = Training([], lambda step, draw=draw: draw.gauss(0.0, 1e-2))
        for _ in range(60):
            training.look(40)
            assert abs(training.wake.seconds(True) - USUAL) < 3e-4


def test_single_interruptions_do_not_count() -> None:
    training = Training([4e-4], lambda step: 0.05 if step % 331 == 3 else 0.0).looks(60)
    assert training.wake.seconds(True) == pytest.approx(4e-4, rel=0.05)


def test_the_mean_counts_where_some_looks_leave_more_behind() -> None:
    """Every fourth sample has histograms."""
    training = Training([])
    for number in range(200):
        training._excesses = [8e-4 if number % 4 == 0 else 2e-4]
        training.look(40)
    assert training.wake.seconds(True) == pytest.approx(3.5e-4, rel=0.25)


def test_it_follows_a_machine_that_changes() -> None:
    training = Training([1e-4]).looks(100)
    training._excesses = [9e-4]
    assert training.looks(40 * SELDOM).wake.seconds(True) == pytest.approx(9e-4)


@pytest.mark.parametrize("disturb", [1, LONGEST, LONGEST + 1, 2 * LONGEST])
def test_a_look_is_not_measured_if_something_comes_between(disturb: int) -> None:
    training = Training([5e-4]).looks(ENOUGH)
    for _ in range(FIRST):
        training.look(40, disturb=disturb)
    assert training.wake.seconds(True) == pytest.approx(5e-4)


def test_a_look_in_a_window_ends_the_measurement() -> None:
    """One that was not planned: its step is far longer, and what follows is not the last look's any more."""
    training = Training([5e-4]).looks(ENOUGH)
    for _ in range(FIRST - ENOUGH):
        step = training._step
        wake = training.wake
        wake.begin(step)
        wake.looked(True)
        assert wake.next_reading(step + 1, step + 40) == step + 1 + LONGEST
        training.now += 1.0
        wake.looked(False)
        assert wake.next_reading(step + 4, step + 40) > step + 40
        training._step += 40
    assert wake.seconds(True) == pytest.approx(5e-4)
    assert wake.seconds(False) == USUAL


def test_samples_and_glances_are_told_apart() -> None:
    training = Training([3e-4]).looks(ENOUGH)
    training._excesses = [2e-5]
    training.looks(ENOUGH, sampled=False)
    assert training.wake.seconds(True) == pytest.approx(3e-4)
    assert training.wake.seconds(False) == pytest.approx(2e-5)


def test_later_looks_are_followed_seldom() -> None:
    training = Training([1e-4]).looks(FIRST)
    before = training.readings
    training.looks(10 * SELDOM)
    assert training.readings - before == 10 * SELDOM + 2 * 10


def test_what_is_left_behind_is_never_less_than_nothing() -> None:
    assert Training([-3e-4]).looks(ENOUGH).wake.seconds(True) == 0.0


def samples_where_each_leaves(beside: float) -> int:
    """Samples in 20,000 steps of a millisecond, each of which takes another one itself."""
    pace, samples, last = Pace(overhead=0.01), 0, 0
    for step in range(20_000):
        if step >= pace.next_step:
            sampled = pace.is_sample(step)
            samples += sampled
            count, last = step + 1 - last, step + 1
            pace.spent(
                step, count, count * 1e-3, 0.0, (1e-3 if sampled else 1e-5) + beside, sampled
            )
    return samples


def test_samples_are_fewer_where_they_leave_more_behind() -> None:
    little, much = samples_where_each_leaves(0.0), samples_where_each_leaves(1e-3)
    assert 0.4 * little < much < 0.65 * little


def test_a_training_in_which_clocks_are_read_is_the_same(tmp_path: Path) -> None:
    """Bit by bit, with a record for each sample, and nothing of it is held afterwards."""

    def train(watched: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        run = tv.init(project="wake", mode="offline", dir=tmp_path) if watched else None
        if run is not None:
            run.watch(model, optimizer, interval=12)
        for _ in range(100):
            optimizer.zero_grad()
            model(torch.randn(5, 4)).square().mean().backward()
            optimizer.step()
        if run is not None:
            run.finish()
        return [parameter.detach() for parameter in model.parameters()]

    for one, other in zip(train(True), train(False), strict=True):
        assert torch.equal(one, other)
