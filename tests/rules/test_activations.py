"""dead-relu-units."""

import math

import pytest

from trainvitals.hooks.wire.records import Row


def sample(run, steps, overrides):
    for step in steps:
        run.step(step, {}, None, overrides)
    return run


def dead(share, positions=20_000.0, zeros=None):
    zeros = 0.5 + share / 2 if zeros is None else zeros
    return {"dead_fraction": share, "dead_positions": positions, "zero_fraction": zeros}


def test_mostly_zero_values_are_healthy(script):
    run = sample(script().relu_stack(3), range(60), {"*": {"zero_fraction": 0.95}})
    assert run.findings() == {}


def test_a_few_units_silent_on_small_batches_are_healthy(script):
    # A healthy He net has up to 13 % silent units on a batch of 8 (160 positions after 20 batches).
    overrides = {f"relu{i}": dead(0.04 * i, positions=160.0) for i in (1, 2, 3)}
    assert sample(script().relu_stack(3), range(60), overrides).findings() == {}


def test_a_third_of_dead_units_needs_many_samples(script):
    few = sample(script().relu_stack(2), range(60), {"relu2": dead(0.4, positions=499.0)})
    assert few.findings() == {}
    found = sample(script().relu_stack(2), range(60), {"relu2": dead(0.4)}).findings()
    finding = found["dead-relu-units"]
    assert (finding.severity, finding.layers) == ("warning", ["relu2"])
    assert finding.title == (
        f"relu2 (behind fc2): 40 % of its units are dead, over 10 % since step {finding.first_step}"
    )


def test_units_that_are_off_for_all_samples_alike_are_not_dead(script):
    alike = dead(0.7) | {"batch_variation": 2e-4}
    assert sample(script().relu_stack(2), range(60), {"relu2": alike}).findings() == {}
    differing = dead(0.7) | {"batch_variation": 2e-2}
    found = sample(script().relu_stack(2), range(60), {"relu2": differing}).findings()
    assert found["dead-relu-units"].layers == ["relu2"]
    silent = dead(1.0, zeros=1.0) | {"batch_variation": math.nan}
    found = sample(script().relu_stack(2), range(60), {"relu2": silent}).findings()
    assert found["dead-relu-units"].layers == ["relu2"]


def test_a_tenth_is_a_note(script):
    found = sample(script().relu_stack(2), range(60), {"relu1": dead(0.15)}).findings()
    assert found["dead-relu-units"].severity == "info"


def test_an_obvious_case_needs_few_samples(script):
    run = script().relu_stack(2)
    for step in range(8):
        run = sample(run, [step], {"relu1": dead(0.7, 45.0 * (step + 1))})
    finding = run.findings()["dead-relu-units"]
    assert (finding.severity, finding.first_step) == ("warning", 0)
    assert not sample(script().relu_stack(2), range(9), {"relu1": dead(0.7, 200.0)}).findings()
    assert not sample(script().relu_stack(2), range(5), {"relu1": dead(0.7, 2560.0)}).findings()


def test_a_silent_layer_is_critical_after_three_samples(script):
    silent = {"relu2": dead(1.0, positions=32.0, zeros=1.0)}
    run = sample(script().relu_stack(2), [5, 6], silent)
    assert run.findings() == {}
    finding = sample(run, [7], silent).findings()["dead-relu-units"]
    assert (finding.severity, finding.first_step, finding.layers) == ("critical", 5, ["relu2"])


@pytest.mark.parametrize("batch", [6, 32, 500])
@pytest.mark.parametrize("death", [1, 7, 60, 133, 300, 341])
def test_the_onset_lies_within_a_generation_after_the_death_and_clear_as_close_before(
    script, silenced, death, batch
):
    silent = silenced(batch, lambda step: 0.4 if step >= 3 * death else 0.0)
    run = script().relu_stack(2)
    for number in range(1200):
        run.step(3 * number, {}, None, {"relu2": silent(3 * number)})
    finding = run.findings()["dead-relu-units"]
    clear, generation = finding.evidence["clear"], 3 * max(20, math.ceil(1024 / batch))
    assert clear <= 3 * death <= finding.first_step
    assert finding.first_step == clear + generation
    assert finding.evidence["seen"].endswith(f", which were active up to step {clear}")


@pytest.mark.parametrize("batch", [6, 32, 500])
def test_units_that_never_lived_are_dead_since_the_first_sample(script, silenced, batch):
    silent = silenced(batch, lambda step: 0.4)
    run = script().relu_stack(2)
    for step in range(200):
        run.step(step, {}, None, {"relu2": silent(step)})
    assert run.findings()["dead-relu-units"].first_step == 0


def test_the_zeros_of_a_dead_layer_tell_its_onset_to_a_sample(script, silenced):
    silent = silenced(32, lambda step: 0.96 if step >= 201 else 0.0)
    run = script().relu_stack(2)
    for step in range(0, 600, 3):
        run.step(step, {}, None, {"relu2": silent(step)})
    assert run.findings()["dead-relu-units"].first_step == 201


def test_zeros_from_before_the_units_last_lived_are_no_onset(script, silenced):
    silent = silenced(32, lambda step: 0.96 if step >= 400 else 0.0, zeros=0.92)
    run = script().relu_stack(2)
    for step in range(0, 900, 3):
        run.step(step, {}, None, {"relu2": silent(step)})
    assert 400 <= run.findings()["dead-relu-units"].first_step <= 400 + 3 * 32


def test_another_attempt_counts_anew(script, silenced):
    first, second = script("a1").relu_stack(2), script("a2").relu_stack(2)
    alive, silent = silenced(32, lambda step: 0.0), silenced(32, lambda step: 0.4)
    for step in range(150):
        first.step(step, {}, None, {"relu2": alive(step)})
        second.step(150 + step, {}, None, {"relu2": silent(step)})
    engine = first.engine()
    for record in second.records:
        engine.feed(second.stream, record)
    assert {finding.rule: finding.first_step for finding in engine.findings()} == {
        "dead-relu-units": 150,
        "dead-units-growing": 150,
    }


def test_the_layer_that_died_first_comes_first(script):
    run = sample(script().relu_stack(3), range(30), {"relu3": dead(1.0, zeros=1.0)})
    both = {"relu3": dead(1.0, zeros=1.0), "relu1": dead(1.0, zeros=1.0)}
    finding = sample(run, range(30, 60), both).findings()["dead-relu-units"]
    assert finding.layers == ["relu3", "relu1"] and finding.first_step == 0
    assert set(finding.evidence["shares"]) == {"relu1", "relu3"}


def test_sparse_layers_of_attention_models_are_a_note_unless_they_grow(script):
    rows = [
        Row(name="attn", layer="attn", type="MultiheadAttention", shape=(8, 64)),
        Row(name="act", layer="act", type="ReLU", shape=(8, 64)),
    ]
    sparse = {"attn": {"dead_fraction": float("nan")}, "act": dead(0.7)}
    run = sample(script().activations(rows), range(60), sparse)
    assert run.findings()["dead-relu-units"].severity == "info"
    growing = sample(script().activations(rows), range(60), sparse | {"act": dead(0.05)})
    growing = sample(growing, range(60, 90), sparse)
    assert growing.findings()["dead-relu-units"].severity == "warning"


def test_revived_units_resolve(script):
    run = sample(script().relu_stack(1), range(10), {"relu1": dead(1.0, zeros=1.0)})
    finding = sample(run, range(10, 13), {}).findings()["dead-relu-units"]
    assert finding.state == "resolved" and finding.last_step == 9


def test_layers_without_a_flat_side_are_not_judged(script):
    rows = [Row(name="head", layer="head", type="Linear", shape=(32, 10))]
    zero = {"head": {"zero_fraction": 1.0, "dead_fraction": float("nan")}}
    run = sample(script().activations(rows), range(30), zero)
    assert run.findings() == {}
    assert run.states()["dead-relu-units"] == "not applicable"
