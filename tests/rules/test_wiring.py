"""trainable-not-in-optimizer, unchanged-parameter, grad-not-zeroed."""

import math

import pytest

from trainvitals.hooks.wire.records import Row


def rows(**out):
    names = ("fc1.weight", "fc2.weight", "head.weight")
    return [
        Row(
            name=name,
            layer=name.removesuffix(".weight"),
            type="Linear",
            shape=(64, 64),
            in_optimizer=name not in out.get("missing", ()),
            trainable=name not in out.get("frozen", ()),
        )
        for name in names
    ]


RATE = {"tv/lr/0": 1e-3}
STILL = {"unchanged": 1.0, "update_ratio": math.nan}


def train(run, start, stop, overrides, every=1, scalars=RATE):
    for step in range(start, stop, every):
        run.step(step, scalars, overrides)
    return run


def test_a_parameter_left_out_of_the_optimizer_is_the_root_of_its_standstill(script):
    run = train(script().parameters(rows(missing=["fc2.weight"])), 0, 25, {"fc2.weight": STILL})
    found = run.findings()
    root = found["trainable-not-in-optimizer"]
    assert root.root and root.severity == "critical" and root.layers == ["fc2"]
    assert root.first_step == 0
    assert "fc2.weight" in root.title and "33.3 %" in root.title
    assert found["unchanged-parameter"].cause == "trainable-not-in-optimizer"


def test_a_second_optimizer_that_shows_up_in_time_holds_the_rest(script):
    run = train(script().parameters(rows(missing=["fc2.weight"])), 0, 15, {})
    run.parameters(rows(), step=15)
    assert train(run, 15, 60, {}).findings() == {}


def test_a_frozen_parameter_belongs_in_no_optimizer(script):
    run = script().parameters(rows(missing=["fc1.weight"], frozen=["fc1.weight"]))
    frozen = {"fc1.weight": STILL | {"grad_rms": math.nan, "grad_absmax": math.nan}}
    assert train(run, 0, 60, frozen).findings() == {}


def test_a_left_out_parameter_without_gradient_is_nobodys_loss(script):
    run = script().parameters(rows(missing=["fc1.weight"]))
    nothing = {"fc1.weight": {"grad_rms": math.nan, "unchanged": math.nan}}
    assert train(run, 0, 60, nothing).findings() == {}


def test_a_tiny_left_out_parameter_is_a_note(script):
    run = script().parameters(
        [*rows(), Row(name="scale", layer="", shape=(1,), in_optimizer=False)]
    )
    assert train(run, 0, 60, {}).findings()["trainable-not-in-optimizer"].severity == "info"


def test_before_any_optimizer_was_seen_nothing_is_missing(script):
    names = ["fc1.weight", "fc2.weight", "head.weight"]
    run = train(script().parameters(rows(missing=names)), 0, 60, {})
    assert run.findings() == {}


def test_an_unchanged_parameter_fires_after_twenty_steps_with_the_first_one_as_onset(script):
    run = script().parameters(rows())
    train(run, 0, 10, {})
    train(run, 10, 30, {"fc2.weight": STILL}, every=5)
    assert run.findings() == {}  # 10, 15, 20, 25: fifteen steps
    found = train(run, 30, 31, {"fc2.weight": STILL}).findings()["unchanged-parameter"]
    assert (found.first_step, found.last_step, found.severity) == (10, 30, "critical")


def test_a_rate_of_zero_excuses_a_standstill(script):
    run = script().parameters(rows())
    scalars = {"tv/lr/0": 0.0, "tv/lr/1": 1e-3}
    assert train(run, 0, 60, {"fc2.weight": STILL}, scalars=scalars).findings() == {}


def test_an_update_too_small_for_float32_is_no_standstill(script):
    # A bias before a batch norm: its gradient is rounding noise, SGD moves it by less than an ulp.
    noise = {"fc2.weight": STILL | {"grad_rms": 1e-9, "grad_absmax": 3e-9}}
    assert train(script().parameters(rows()), 0, 60, noise).findings() == {}


@pytest.mark.parametrize("gradient", [math.nan, 0.0])
def test_a_parameter_that_no_gradient_reaches_is_named(script, gradient):
    cut = {"fc1.weight": STILL | {"grad_rms": gradient, "grad_absmax": gradient}}
    found = train(script().parameters(rows()), 0, 40, cut).findings()["unchanged-parameter"]
    assert found.severity == "warning" and "no gradient reaches it" in found.title
    assert "detach" in found.remedy


def test_a_parameter_that_moves_again_resolves(script):
    run = train(script().parameters(rows()), 0, 40, {"fc1.weight": STILL})
    assert train(run, 40, 41, {}).findings()["unchanged-parameter"].state == "resolved"


def test_carried_gradients_fire_after_five_steps_from_their_first(script):
    run = script().step(0, {"tv/grad_carried": 0.0})
    for step in range(1, 5):
        run.step(step, {"tv/grad_carried": 1.0})
    assert run.findings() == {}
    found = run.step(5, {"tv/grad_carried": 1.0}).findings()["grad-not-zeroed"]
    assert (found.first_step, found.last_step, found.severity) == (1, 5, "critical")
    assert "zero_grad" in found.diff


def test_carrying_now_and_then_is_accumulation(script):
    run = script()
    for step in range(100):
        run.step(step, {"tv/grad_carried": float(step % 4 > 0)})
    assert run.findings() == {}


def test_carried_gradients_explain_the_explosion(script):
    run = script()
    for step in range(60):
        norm = 1.0 if step < 30 else 10.0 ** (step - 29)
        loss = 2.0 if step < 30 else 2.0 * 3.0 ** (step - 29)
        run.step(step, {"tv/grad_carried": float(step > 0), "tv/grad_norm": norm, "loss": loss})
    found = run.findings()
    assert found["grad-not-zeroed"].root
    assert found["gradient-exploding"].cause == "grad-not-zeroed"
    assert found["loss-divergence"].cause == "grad-not-zeroed"
