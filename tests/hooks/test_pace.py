"""Which steps are looked at, and what that may cost."""

import math
from collections.abc import Callable

import pytest

from trainvitals.hooks.pace import ANOMALY_BURST, BURST, Pace

ALWAYS = 1e-5


class Training:
    """A training in which samples and glances cost fixed times; seconds throughout."""

    def __init__(self, pace: Pace, step: float, sample: float, glance: float = 0.0) -> None:
        self.pace, self.step_time, self.sample_cost, self.glance_cost = pace, step, sample, glance
        self.samples: list[int] = []
        self.glances: list[int] = []
        self.spent = 0.0
        self.completed = 0
        self._last = 0

    def go(self, steps: int, each: Callable[[int], None] = lambda step: None) -> "Training":
        for step in range(self.completed, self.completed + steps):
            each(step)
            if step >= self.pace.next_step:
                self._look(step)
        self.completed += steps
        return self

    def _look(self, step: int) -> None:
        sampled = self.pace.is_sample(step)
        (self.samples if sampled else self.glances).append(step)
        cost = self.sample_cost if sampled else self.glance_cost
        self.spent += cost
        count, self._last = step + 1 - self._last, step + 1
        always = ALWAYS * self.step_time * count
        self.pace.spent(step, count, count * self.step_time, always, cost, sampled)

    @property
    def share(self) -> float:
        return self.spent / (self.completed * self.step_time)


@pytest.mark.parametrize("cost", [0.01, 0.1, 0.6, 4.0])
@pytest.mark.parametrize("overhead", [0.01, 0.05])
def test_the_budget_holds_over_a_run(cost: float, overhead: float) -> None:
    """Whatever a sample costs in step times, and the burst of the start included."""
    training = Training(Pace(overhead=overhead), 0.01, cost * 0.01, glance=1e-5).go(1_000)
    assert training.share < 1.3 * overhead + cost / 1_000
    training.go(19_000)
    assert 0.7 * min(overhead, cost) < training.share < 1.05 * overhead


def test_first_steps_are_all_sampled_where_the_budget_bears_it() -> None:
    cheap = Training(Pace(overhead=0.01), 0.01, 0.001).go(30)
    assert cheap.samples[:BURST] == list(range(BURST))
    dear = Training(Pace(overhead=0.01), 0.01, 0.02).go(30)
    assert dear.samples == [0, 1]


def test_tiny_steps_are_sampled_from_the_start_to_the_end_of_a_short_training() -> None:
    """What 25 ms pay for: half of it close together, half at doubling distances."""
    training = Training(Pace(overhead=0.01), 0.0004, 0.0025, glance=5e-5).go(400)
    assert training.samples[:5] == list(range(5))
    assert 9 <= len(training.samples) <= 11
    assert training.samples[-1] >= 80
    training.go(100_000)
    assert training.share < 0.0125


def test_samples_go_on_while_the_burst_is_paid_back() -> None:
    training = Training(Pace(overhead=0.01), 0.01, 0.0025).go(1_000)
    assert len([step for step in training.samples if BURST <= step]) >= 5


def test_samples_get_a_share_where_the_watch_uses_up_the_budget() -> None:
    pace = Pace(overhead=0.01)
    samples = 0
    last = 0
    for step in range(100_000):
        if step < pace.next_step:
            continue
        sampled = pace.is_sample(step)
        samples += sampled
        count, last = step + 1 - last, step + 1
        pace.spent(step, count, count * 1e-3, count * 2e-5, 1e-3 if sampled else 1e-5, sampled)
    assert 0.001 < samples * 1e-3 / 100 < 0.004


def test_glances_come_between_samples_and_cost_a_part_of_the_budget() -> None:
    training = Training(Pace(overhead=0.01), 0.01, 0.005, glance=0.0001).go(20_000)
    cost = len(training.glances) * 0.0001
    assert 0.001 < cost / (20_000 * 0.01) < 0.003


def test_slow_steps_are_all_glanced_at() -> None:
    training = Training(Pace(overhead=0.01), 1.0, 0.1, glance=0.001).go(200)
    assert len(training.samples) + len(training.glances) == 200


def test_interval_fixes_the_samples() -> None:
    training = Training(Pace(interval=7), 0.01, 0.005).go(30)
    assert training.samples == [0, 7, 14, 21, 28]


def test_an_anomaly_starts_a_burst_within_the_budget() -> None:
    pace = Pace(overhead=0.01)
    training = Training(pace, 0.01, 0.002, glance=1e-5).go(5_000)
    pace.anomaly()
    training.go(ANOMALY_BURST)
    assert training.samples[-ANOMALY_BURST:] == list(range(5_000, 5_000 + ANOMALY_BURST))
    training.go(5_000, lambda step: pace.anomaly())
    assert training.share < 0.013


def test_norms_that_stay_nonfinite_start_one_burst() -> None:
    pace = Pace(overhead=0.01)

    def each(step: int) -> None:
        if step >= pace.next_step:
            pace.saw_norm(1.0 if step < 2_000 else math.nan)

    training = Training(pace, 0.01, 0.005, glance=1e-5).go(6_000, each)
    late = [step for step in training.samples if step >= 2_000]
    assert len(late) * 0.005 <= 4_000 * 0.01 * 0.01 + ANOMALY_BURST * 0.005


def test_a_norm_far_above_the_usual_stands_out() -> None:
    pace = Pace()
    for _ in range(20):
        pace.saw_norm(1.0)
    assert pace.stands_out(11.0) and not pace.stands_out(9.0)
    assert pace.stands_out(math.inf) and pace.stands_out(math.nan)


def test_a_slower_training_is_sampled_more_often() -> None:
    training = Training(Pace(overhead=0.01), 0.001, 0.005, glance=1e-6).go(20_000)
    before = len(training.samples)
    training.step_time = 0.1
    training.go(2_000)
    assert len(training.samples) - before > 200


def test_a_paused_training_goes_on_without_a_new_burst() -> None:
    pace = Pace(overhead=0.01)
    training = Training(pace, 0.01, 0.005, glance=1e-5).go(3_000)
    before = len(training.samples)
    pace.resume(Pace(overhead=0.01), 3_000)
    training.go(200)
    assert len(training.samples) - before <= 5


@pytest.mark.parametrize(
    ("step", "cost"), [(0.001, 0.0025), (0.001, 0.0005), (0.01, 0.02), (0.1, 0.03)]
)
@pytest.mark.parametrize("glance", [0.0, 1e-5])
def test_steps_of_both_tasks_are_sampled_where_they_take_turns(
    step: float, cost: float, glance: float
) -> None:
    """On credit, whose distances double, and from savings, whose distances are all alike."""
    training = Training(Pace(overhead=0.01), step, cost, glance).go(5_000)
    later = [sample for sample in training.samples if sample >= BURST]
    odd = [sample % 2 for sample in later]
    assert len(later) > 10
    assert abs(sum(odd) - len(odd) / 2) <= 2
    assert len(set(odd[:2])) == 2


def test_every_step_is_sampled_where_the_budget_bears_it() -> None:
    assert Training(Pace(overhead=0.5), 0.01, 0.001).go(200).samples == list(range(200))


def test_glances_that_are_to_keep_an_eye_on_the_step_time_stay_within_the_budget() -> None:
    dear = Training(Pace(overhead=0.001, interval=10**9), 0.1, 0.05, glance=0.01).go(5_000)
    assert 5 < len(dear.glances)
    assert dear.glance_cost * len(dear.glances) < 1.3 * 0.001 * 5_000 * 0.1
    none = Training(Pace(overhead=1e-9, interval=10**9), 0.1, 0.05, glance=0.01).go(5_000)
    assert len(none.glances) <= 1
