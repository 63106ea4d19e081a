"""Rules of the loss curve, the validation and the schedule."""

import random


def logged(script, losses, **scalars):
    run = script()
    for step, loss in enumerate(losses):
        values = {name: value(step) for name, value in scalars.items() if value(step) is not None}
        run.step(
            step,
            {"loss": loss, "tv/lr/0": 0.1} | {k.replace("__", "/"): v for k, v in values.items()},
        )
    return run


def falling(count, noise=0.05, seed=0):
    generator = random.Random(seed)
    return [2.3 * 0.99**step + abs(generator.gauss(0, noise)) + 0.01 for step in range(count)]


def test_ten_equal_losses_are_one_too_many(script):
    assert logged(script, [2.5, *[2.25] * 9]).findings() == {}
    finding = logged(script, [2.5, *[2.25] * 10]).findings()["loss-constant"]
    assert (finding.first_step, finding.severity) == (1, "critical")


def test_a_loss_of_zero_may_stay(script):
    assert "loss-constant" not in logged(script, [1.0] + [0.0] * 50).findings()


def test_one_spike_is_a_note_and_four_are_a_warning(script):
    losses = falling(300)
    losses[120] = 60.0
    assert logged(script, losses).findings()["loss-spike"].severity == "info"
    for step in (150, 180, 210):
        losses[step] = 60.0
    finding = logged(script, losses).findings()["loss-spike"]
    assert (finding.severity, finding.first_step, finding.last_step) == ("warning", 120, 210)


def test_a_loss_that_never_falls_is_told_after_300_steps(script):
    generator = random.Random(1)
    losses = [2.31 + generator.gauss(0, 0.1) for _ in range(320)]
    labels = {"tv__label_entropy": lambda step: 2.3, "tv__label_count": lambda step: 64.0 * step}
    assert "loss-not-decreasing" in logged(script, losses, **labels).findings()
    assert "loss-not-decreasing" not in logged(script, losses[:290], **labels).findings()
    fell = [*falling(200), *losses]
    assert "loss-not-decreasing" not in logged(script, fell, **labels).findings()


def validated(script, values, every=10):
    return logged(
        script,
        falling(every * len(values)),
        val__loss=lambda step: values[step // every] if step % every == every - 1 else None,
    )


def test_a_validation_that_rises_beyond_its_noise_is_overfitting_from_its_best_on(script):
    values = [2.0 * 0.8**i for i in range(8)] + [0.42 * 1.1**i for i in range(1, 9)]
    finding = validated(script, values).findings()["overfitting"]
    assert finding.severity == "warning" and 69 <= finding.first_step <= 89


def test_a_noisy_validation_that_falls_is_healthy(script):
    generator = random.Random(3)
    values = [2.0 * 0.95**i * (1 + generator.gauss(0, 0.05)) for i in range(40)]
    # A gap to the training opens, which is worth a note and no more.
    assert set(validated(script, values).findings()) <= {"generalisation-gap"}


def test_the_fifth_equal_validation_is_critical(script):
    assert "val-constant" not in validated(script, [0.7] * 4).findings()
    assert validated(script, [0.7] * 5).findings()["val-constant"].first_step == 9


def test_a_schedule_that_ended_is_told_and_one_that_ends_with_the_run_is_not(script):
    def run_of(end, steps):
        run = script()
        for step, loss in enumerate(falling(steps)):
            run.step(step, {"loss": loss, "tv/lr/0": max(0.0, 0.1 * (1 - step / end))})
        return run.findings()

    assert "lr-schedule-mismatch" not in run_of(300, 310)
    assert run_of(100, 300)["lr-schedule-mismatch"].first_step == 100
