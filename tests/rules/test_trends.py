"""Rules of trends: dying units, plateaus, gaps, oscillation, skipped steps; and what several signs amount to."""

import random

import msgspec
import pytest

from trainvitals.app.rules.engine import Engine
from trainvitals.hooks.wire.observed import LoaderSeen, Observed
from trainvitals.hooks.wire.records import Step


def noisy(levels, noise, seed=0):
    generator = random.Random(seed)
    return [level * (1 + generator.gauss(0, noise)) for level in levels]


def logged(script, losses, **scalars):
    """`scalars`: values by step, under names with "__" for "/"."""
    run = script()
    for step, loss in enumerate(losses):
        values = {name.replace("__", "/"): value(step) for name, value in scalars.items()}
        rate = {"tv/lr/0": 0.1} | {
            name: value for name, value in values.items() if value is not None
        }
        run.step(step, {"loss": loss} | rate)
    return run


# dead-units-growing


def with_dead_units(script, silenced, share, every=5):
    run, silent = script().relu_stack(2), silenced(100, share)
    for step in range(0, 700, every):
        run.step(step, {}, None, {"relu2": silent(step)})
    return run.findings()


@pytest.mark.parametrize(("most", "severity"), [(0.25, "info"), (0.45, "warning")])
def test_units_that_die_one_by_one_are_told_by_their_layer(script, silenced, most, severity):
    found = with_dead_units(script, silenced, lambda step: min(max((step - 200) / 400, 0.02), most))
    finding = found["dead-units-growing"]
    assert (finding.severity, finding.layers) == (severity, ["relu2"])
    # Ten points over the 2 % of the start at step 248, between those where a generation of 20 samples began.
    assert (finding.evidence["clear"], finding.first_step) == (200, 300)


def test_units_that_are_dead_already_do_not_grow(script, silenced):
    assert "dead-units-growing" not in with_dead_units(script, silenced, lambda step: 0.7)


def test_units_that_die_in_the_first_steps_do_not_count(script, silenced):
    found = with_dead_units(script, silenced, lambda step: 0.28 if step > 10 else 0.0, 2)
    assert "dead-units-growing" not in found


# plateau


def test_a_loss_that_falls_by_a_power_is_no_plateau(script):
    losses = noisy([2.3 * (1 + step) ** -0.3 for step in range(1500)], 0.03)
    assert "plateau" not in logged(script, losses).findings()


def test_a_level_loss_is_a_note_while_the_rate_is_at_work(script):
    falls = [2.3 * (1 + step) ** -0.3 for step in range(400)]
    finding = logged(script, noisy(falls + [falls[-1]] * 600, 0.03)).findings()["plateau"]
    assert finding.severity == "info"
    assert 350 <= finding.first_step <= 800


def test_a_level_loss_behind_a_spent_rate_is_a_warning_from_there_on(script):
    falls = [2.3 * 0.99**step for step in range(100)]
    losses = noisy(falls + [falls[-1]] * 700, 0.02)
    spent = {"tv__lr__0": lambda step: 0.1 if step < 100 else 1e-4}
    finding = logged(script, losses, **spent).findings()["plateau"]
    assert (finding.severity, finding.first_step) == ("warning", 100)


def test_losses_below_zero_have_no_plateau(script):
    run = logged(script, noisy([-1.0] * 800, 0.03))
    assert run.states()["plateau"] == "not applicable"


# generalisation-gap


def validated(script, validation, training, every=20):
    count = len(validation) * every
    return logged(
        script,
        [training[step // every] for step in range(count)],
        val__loss=lambda step: validation[step // every] if step % every == every - 1 else None,
    )


def test_a_gap_that_widens_is_a_note(script):
    training = [2.0, 1.6, 1.2, 0.9, 0.7, 0.5, 0.4, 0.3]
    finding = validated(script, [2.0, 1.7, 1.4, 1.2, 1.1, 1.0, 1.0, 1.0], training).findings()
    assert finding["generalisation-gap"].severity == "info"
    assert finding["generalisation-gap"].evidence["gap"] == pytest.approx((1.0 - 0.3) / 2.0)


def test_a_gap_that_stays_is_none(script):
    training = [2.0, 1.6, 1.2, 0.9, 0.7, 0.5, 0.4, 0.3]
    run = validated(script, [value + 0.5 for value in training], training)
    assert "generalisation-gap" not in run.findings()
    assert run.states()["generalisation-gap"] == "ok"


def test_an_accuracy_is_compared_with_the_same_of_the_training(script):
    ahead = [0.0, 0.02, 0.05, 0.09, 0.14, 0.2, 0.3]
    at = lambda step, values: values[step // 20] if step % 20 == 19 else None  # noqa: E731
    run = logged(
        script,
        [1.0] * 140,
        train__acc=lambda step: at(step, [0.6 + gap for gap in ahead]),
        val__acc=lambda step: at(step, [0.6] * 7),
    )
    finding = run.findings()["generalisation-gap"]
    assert finding.evidence["where"] == "val/acc"
    assert finding.evidence["gap"] == pytest.approx(0.3)


# amp-skip-storm


def scaled(script, scales):
    """`scales`: by step, whenever the scale changed; several in a step are steps that were skipped."""
    run = script()
    for step, values in scales:
        for value in values:
            run.step(step, {"tv/amp_scale": value})
    return run.step(scales[-1][0] + 5, {})


def test_a_scale_that_comes_down_at_the_start_is_usual(script):
    run = scaled(script, [(0, [65536.0 / 2**n for n in range(12)]), (400, [64.0])])
    assert "amp-skip-storm" not in run.findings()
    assert run.states()["amp-skip-storm"] == "ok"


def test_a_scale_below_one_is_critical_at_once(script):
    found = scaled(script, [(3, [65536.0 / 2**n for n in range(18)])]).findings()
    finding = found["amp-skip-storm"]
    assert (finding.severity, finding.first_step) == ("critical", 3)


def test_a_tenth_of_the_steps_skipped_is_a_warning(script):
    steps = [(step, [2.0 ** (24 - step // 10)]) for step in range(0, 200, 10)]
    assert scaled(script, steps).findings()["amp-skip-storm"].severity == "warning"
    seldom = [(step, [2.0 ** (24 - step // 50)]) for step in range(0, 600, 50)]
    assert "amp-skip-storm" not in scaled(script, seldom).findings()


def test_ten_skipped_steps_in_a_row_are_critical_later_on(script):
    row = [2.0 ** (23 - n) for n in range(10)]
    found = scaled(script, [(0, [2.0**24]), (300, row)]).findings()
    assert (found["amp-skip-storm"].severity, found["amp-skip-storm"].first_step) == (
        "critical",
        300,
    )


def test_without_a_scaler_it_does_not_apply(script):
    assert script().step(0, {"loss": 1.0}).states()["amp-skip-storm"] == "not applicable"


# loss-oscillation


def oscillating(script, along, losses, batches=50):
    run = script()
    loader = Observed(loader=LoaderSeen(batches=batches))
    run.add(Step, step=0, scalars={}, observed=loader)
    for step, loss in enumerate(losses):
        run.step(step, {"loss": loss, "tv/lr/0": 0.1, "tv/grad_along": along})
    return run.findings()


BAND = noisy([1.0] * 400, 0.3)


def test_a_band_with_gradients_that_turn_back_is_told(script):
    finding = oscillating(script, -0.5, BAND)["loss-oscillation"]
    assert (finding.severity, finding.first_step) == ("warning", 0)


def test_a_band_of_mere_noise_is_not(script):
    assert "loss-oscillation" not in oscillating(script, 0.0, BAND)


def test_a_loss_that_falls_while_its_steps_turn_back_is_well(script):
    losses = noisy([0.99**step for step in range(400)], 0.3)
    assert "loss-oscillation" not in oscillating(script, -0.5, losses)


@pytest.mark.parametrize("batches", [0, 11])
def test_short_epochs_and_unknown_ones_are_a_note(script, batches):
    assert oscillating(script, -0.5, BAND, batches)["loss-oscillation"].severity == "info"


# lr-too-high


def stepped(script, ratio, losses, start=0):
    """Updates of `ratio` of the weights and losses from step `start` on; well before."""
    run = script().linear_stack(3)
    for step in range(start + len(losses)):
        late = step >= start
        loss = losses[step - start] if late else 2.3 * 0.99**step
        updates = {"*": {"update_ratio": ratio if late else 0.01}}
        run.step(step, {"loss": loss, "tv/lr/0": 0.5}, updates)
    return run


RUNAWAY = [2.3, 2.2, *[10.0 * 1.2**n for n in range(60)]]


def test_steps_and_loss_together_are_a_rate_that_is_too_high(script):
    found = stepped(script, 0.7, RUNAWAY).findings()
    finding = found["lr-too-high"]
    assert finding.root and finding.severity == "critical" and finding.first_step <= 5
    assert {found[rule].cause for rule in ("update-ratio-high", "loss-divergence")} == {
        "lr-too-high"
    }
    assert set(finding.evidence["signs"]) == {"update-ratio-high", "loss-divergence"}


def test_a_sign_from_before_the_size_of_the_steps_was_sampled_has_its_own_step(script):
    run = script().linear_stack(3)
    run.step(0, {"loss": 2.3, "tv/lr/0": 0.5}, {})
    for step, loss in enumerate(RUNAWAY[1:], start=1):
        updates = {"*": {"update_ratio": 0.7}} if step >= 12 else None
        run.step(step, {"loss": loss, "tv/lr/0": 0.5}, updates)
    found = run.findings()
    finding, size, loss = (
        found[rule] for rule in ("lr-too-high", "update-ratio-high", "loss-divergence")
    )
    assert (loss.first_step, size.first_step) == (2, 12)
    assert finding.first_step == finding.evidence["since"] == 2
    assert "since step 12; it shows in the loss (since step 2) as well" in finding.title
    assert [sign.rpartition(", ")[2] for sign in finding.evidence["each"]] == [
        "since step 2",
        "since step 12",
    ]
    assert finding.layers == size.layers and finding.evidence["where"] == size.evidence["where"]


def test_what_it_shows_in_is_named_each(script):
    run = script().linear_stack(3).relu_stack(2)
    for step in range(400):
        sick = step >= 200
        scalars = {"loss": 2.3 * 0.99**step, "tv/lr/0": 0.5 if sick else 0.01, "tv/grad_norm": 1.0}
        if sick:
            scalars |= {"loss": min(10.0 * 1.2 ** (step - 200), 1e9), "tv/grad_norm": 1e4}
        dead = {"dead_fraction": 0.95, "zero_fraction": 1.0} if sick else {}
        ratio = 0.7 if sick else 0.01
        run.step(step, scalars, {"*": {"update_ratio": ratio}}, {"relu2": dead})
    finding = run.findings()["lr-too-high"]
    title, _, beside = finding.title.partition("; it shows in ")
    assert "since step 200" in title
    assert beside == "the loss, the gradient norm and the units as well"


def test_its_signs_are_told_as_seen_and_not_as_what_followed(script):
    found = stepped(script, 0.7, RUNAWAY).findings()
    finding = found["lr-too-high"]
    signs = [found[rule] for rule in finding.evidence["signs"]]
    assert len(signs) == len(finding.evidence["each"]) == 2
    assert all(finding.tells(sign) for sign in signs)
    symptom = msgspec.structs.replace(signs[0], key="plateau", rule="plateau")
    assert finding.followers([finding, *signs, symptom]) == [symptom]
    assert signs[0].followers([finding, *signs]) == []


def test_one_sign_alone_is_not(script):
    falling = [2.3 * 0.99**step for step in range(62)]
    assert "lr-too-high" not in stepped(script, 0.7, falling).findings()
    assert "lr-too-high" not in stepped(script, 0.01, RUNAWAY).findings()


def test_units_that_were_never_alive_are_no_sign_of_the_rate(script):
    def found(alive):
        run = script().linear_stack(3).relu_stack(2)
        for step in range(60):
            dead = {"dead_fraction": 0.95, "zero_fraction": 1.0} if step >= alive else {}
            run.step(step, {"loss": 2.3}, {"*": {"update_ratio": 0.7}}, {"relu2": dead})
        return run.findings()

    assert set(found(alive=5)["lr-too-high"].evidence["signs"]) == {
        "update-ratio-high",
        "dead-relu-units",
    }
    assert "lr-too-high" not in found(alive=0)


def test_what_comes_late_at_a_constant_rate_has_another_cause(script):
    found = stepped(script, 0.7, RUNAWAY, start=200).findings()
    assert {"update-ratio-high", "loss-divergence"} <= set(found)
    assert "lr-too-high" not in found


def test_it_stands_beside_what_a_saved_engine_goes_on_with(script):
    run = stepped(script, 0.7, RUNAWAY)
    whole = run.engine()
    half = Engine()
    for record in run.records[:30]:
        half.feed(run.stream, record)
    half = Engine.load(half.save())
    for record in run.records[30:]:
        half.feed(run.stream, record)
    assert half.findings() == whole.findings()
    assert half.states() == whole.states()
