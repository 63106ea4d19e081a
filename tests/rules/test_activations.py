"""dead-relu-units."""

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
    assert "relu2 (behind fc2)" in finding.title and "40 %" in finding.title


def test_a_tenth_is_a_note(script):
    found = sample(script().relu_stack(2), range(60), {"relu1": dead(0.15)}).findings()
    assert found["dead-relu-units"].severity == "info"


def test_an_obvious_case_needs_few_samples(script):
    found = sample(script().relu_stack(2), range(8), {"relu1": dead(0.7, 256.0)}).findings()
    assert (found["dead-relu-units"].severity, found["dead-relu-units"].first_step) == (
        "warning",
        0,
    )
    assert not sample(script().relu_stack(2), range(9), {"relu1": dead(0.7, 200.0)}).findings()
    assert not sample(script().relu_stack(2), range(5), {"relu1": dead(0.7, 2560.0)}).findings()


def test_a_silent_layer_is_critical_after_three_samples(script):
    silent = {"relu2": dead(1.0, positions=32.0, zeros=1.0)}
    run = sample(script().relu_stack(2), [5, 6], silent)
    assert run.findings() == {}
    finding = sample(run, [7], silent).findings()["dead-relu-units"]
    assert (finding.severity, finding.first_step, finding.layers) == ("critical", 5, ["relu2"])


def test_onset_is_when_the_zeros_came_not_when_the_window_forgot(script):
    run = sample(script().relu_stack(2), range(40), {})
    run = sample(run, range(40, 90, 5), {"relu2": dead(0.0, zeros=0.97)})
    run = sample(run, range(90, 110, 5), {"relu2": dead(0.95, zeros=0.97)})
    assert run.findings()["dead-relu-units"].first_step == 40


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
