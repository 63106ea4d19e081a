"""loss-divergence and loss-stuck-at-prior."""

import math
import random

import pytest


def run_of(script, losses, labels=None, rate=None, start=0, **more):
    run = script()
    for step, loss in enumerate(losses, start):
        scalars = {"train/loss": loss}
        if labels:
            scalars |= {f"tv/label_{key}": value for key, value in labels.items()}
        if rate:
            scalars["tv/lr/0"] = rate(step)
        run.step(step, scalars | more)
    return run


def noise(count, size, seed=0):
    generator = random.Random(seed)
    return [generator.gauss(0, size) for _ in range(count)]


LABELS = {"entropy": math.log(10), "classes": 10.0, "count": 640.0}


@pytest.mark.parametrize("steps", [200, 3000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_falling_noisy_loss_is_healthy(script, steps, scale):
    losses = [
        scale * (0.2 + 2.3 * (1 + step / 50) ** -0.7) * (1 + x)
        for step, x in enumerate(noise(steps, 0.15))
    ]
    assert run_of(script, losses, LABELS).findings() == {}


def test_an_exponentially_distributed_loss_of_single_samples_is_healthy(script):
    generator = random.Random(5)
    losses = [(0.3 + 2 * math.exp(-step / 200)) * generator.expovariate(1) for step in range(1500)]
    assert run_of(script, losses, LABELS).findings() == {}


def test_a_loss_near_zero_may_double(script):
    losses = [2.3 * 0.97**step for step in range(400)] + [0.004] * 300
    assert set(run_of(script, losses, LABELS).findings()) <= {"plateau"}


def test_a_slow_divergence_is_found_from_its_beginning(script):
    losses = [2.3 * 0.99**step for step in range(200)]  # down to 0.31
    losses += [0.31 + 0.02 * step for step in range(200)]
    found = run_of(script, losses, LABELS).findings()["loss-divergence"]
    assert 200 <= found.first_step <= 250 and found.severity == "critical"


def test_a_fast_divergence_is_found_within_a_short_run(script):
    found = run_of(script, [2.3 * 3.0**step for step in range(12)]).findings()["loss-divergence"]
    assert found.first_step <= 3


def test_a_spike_that_comes_back_is_no_divergence(script):
    losses = [2.3 * 0.99**step for step in range(200)] + [2.0] * 15 + [0.3] * 200
    assert set(run_of(script, losses, LABELS).findings()) <= {"plateau"}


def test_a_negative_loss_that_falls_is_healthy(script):
    assert run_of(script, [-0.05 * step for step in range(600)]).findings() == {}


def test_a_recovered_loss_resolves(script):
    losses = [1.0] * 60 + [200.0] * 20 + [1.0] * 200
    assert run_of(script, losses).findings()["loss-divergence"].state == "resolved"


def stuck(count, level=2.302585, size=0.05, seed=1):
    return [level + x for x in noise(count, size, seed)]


@pytest.mark.parametrize(
    ("steps", "severity"), [(90, None), (150, "info"), (300, "warning"), (600, "critical")]
)
def test_severity_grows_with_the_time_spent_at_the_prior(script, steps, severity):
    found = run_of(script, stuck(steps), LABELS).findings()
    assert (found["loss-stuck-at-prior"].severity if found else None) == severity
    if severity:
        assert found["loss-stuck-at-prior"].first_step == 0


def test_a_run_that_ended_at_the_prior_is_critical(script):
    found = run_of(script, stuck(200), LABELS).end(199).findings()
    assert found["loss-stuck-at-prior"].severity == "critical"


def test_a_slowly_learning_run_is_not_stuck(script):
    # From 2.33 to 2.27 in 300 steps: all of it within 2 % of ln 10, and falling.
    losses = [2.33 - 0.0002 * step + x for step, x in enumerate(noise(300, 0.05))]
    found = run_of(script, losses, LABELS).findings()
    assert {finding.severity for finding in found.values()} <= {"info"}


def test_the_warm_up_of_the_rate_does_not_count(script):
    def rate(step):
        return 1e-3 * min(1, (step + 1) / 300)

    losses = stuck(300) + [2.3 * 0.99**step for step in range(100)]
    assert run_of(script, losses, LABELS, rate).findings() == {}


def test_imbalanced_classes_are_judged_by_their_own_entropy(script):
    labels = {"entropy": 0.325, "classes": 2.0, "count": 6400.0}  # 90 % : 10 %
    assert run_of(script, stuck(600, 0.325, 0.02), labels).findings()
    learned = run_of(script, stuck(600, 0.25, 0.02), labels).findings()
    assert "loss-stuck-at-prior" not in learned


def test_a_regression_that_predicts_the_mean_is_stuck(script):
    labels = {"variance": 5900.0, "count": 6400.0}
    found = run_of(script, stuck(600, 5900.0, 600), labels).findings()
    assert "variance" in found["loss-stuck-at-prior"].evidence["expected"]


def test_without_labels_the_width_of_the_last_layer_tells(script):
    run = script().relu_stack(1)
    for step, loss in enumerate(stuck(600, math.log(64))):
        run.step(step, {"loss": loss})
    found = run.findings()["loss-stuck-at-prior"]
    assert found.evidence["prior"] == pytest.approx(math.log(64), rel=1e-5)
    assert set(run_of(script, stuck(600)).findings()) <= {"plateau"}


def test_a_loss_that_leaves_the_prior_resolves(script):
    losses = stuck(300) + [2.3 * 0.98**step for step in range(100)]
    found = run_of(script, losses, LABELS).findings()["loss-stuck-at-prior"]
    assert found.state == "resolved" and 290 <= found.last_step <= 310


def test_the_loss_logged_at_every_step_is_the_one_that_counts(script):
    run = script()
    for step, loss in enumerate(stuck(600)):
        scalars = {"tv/loss": loss} | {f"tv/label_{k}": v for k, v in LABELS.items()}
        if step % 50 == 0:
            scalars["train/loss"] = 99.0
        run.step(step, scalars)
    assert run.findings()["loss-stuck-at-prior"].evidence["where"] == "tv/loss"
