"""update-ratio-high."""

import math

from trainvitals.hooks.wire.records import Row


def ratio(value, weight=0.072):
    return {"update_ratio": value, "weight_rms": weight}


def train(run, steps, overrides, loss=None, **scalars):
    for step in steps:
        values = {"tv/lr/0": 0.1} | scalars
        if loss is not None:
            values["loss"] = loss(step)
        run.step(step, values, overrides)
    return run


def test_the_ratios_of_healthy_trainings_are_quiet(script):
    for value in (7e-6, 1e-3, 3e-2):
        assert train(script().linear_stack(4), range(60), {"*": ratio(value)}).findings() == {}


def test_the_first_steps_of_adam_are_quiet(script):
    # Adam moves every weight by its rate at step 0: 0.01/0.072, then less as moments settle.
    run = script().linear_stack(3)
    for step in range(60):
        run.step(step, {"tv/lr/0": 0.01}, {"*": ratio(0.14 / (1 + step / 3))})
    assert run.findings() == {}


def test_a_layer_that_starts_at_zero_grows_by_design(script):
    # All matrices from zero with Adam at 1e-3: the ratio is 1/step while the weight is step/1000.
    run = script().linear_stack(3)
    for step in range(1, 60):
        run.step(step, {}, {"*": ratio(1 / step, weight=1e-3 * step)})
    assert run.findings() == {}


def test_one_small_layer_alone_is_quiet_and_ten_times_over_is_not(script):
    quiet = train(script().linear_stack(5), range(60), {"fc3.weight": ratio(0.4)})
    assert quiet.findings() == {}
    found = train(script().linear_stack(5), range(60), {"fc3.weight": ratio(1.5)}).findings()
    assert found["update-ratio-high"].layers == ["fc3"]


def test_a_tenth_in_half_of_the_samples_is_a_warning_from_its_first_sample(script):
    run = train(script().linear_stack(4), range(50), {})
    run = train(run, range(50, 59), {"*": ratio(0.2)})
    assert run.findings() == {}
    finding = train(run, [59], {"*": ratio(0.2)}).findings()["update-ratio-high"]
    assert (finding.severity, finding.first_step, finding.last_step) == ("warning", 50, 59)
    assert "Learning rate of 0.1 is too high" in finding.title and "20 %" in finding.title


def test_a_half_in_three_samples_is_critical(script):
    run = train(script().linear_stack(4), range(100, 103), {"*": ratio(0.7)})
    finding = run.findings()["update-ratio-high"]
    assert (finding.severity, finding.first_step) == ("critical", 100)


def test_one_step_of_five_times_the_weights_is_enough(script):
    run = train(script().linear_stack(2), [0], {"*": ratio(70.0)})
    assert run.findings()["update-ratio-high"].severity == "critical"


def test_an_extreme_step_and_the_loss_that_follows_are_enough(script):
    def level(step):
        return 2.0 - 0.001 * step

    run = train(script().linear_stack(2), range(30), {}, loss=level)
    run = train(run, [30], {"*": ratio(0.8)}, loss=level)
    run = train(run, range(31, 40), {}, loss=level)
    assert run.findings() == {}
    run = train(run, [40, 41], {}, loss=lambda step: 9.0)
    finding = run.findings()["update-ratio-high"]
    assert (finding.severity, finding.first_step) == ("critical", 30)


def test_a_nan_within_five_steps_is_the_consequence(script):
    run = train(script().linear_stack(3), [0, 1, 2], {"*": ratio(0.9)}, loss=lambda s: 3.0**s)
    run.event(3, direction="forward", layer="fc1", type="Linear", nan=5)
    run.step(3, {"loss": math.nan, "tv/grad_norm": math.nan})
    found = run.findings()
    assert found["lr-too-high"].root and found["lr-too-high"].first_step == 0  # two signs
    assert found["update-ratio-high"].first_step == 0
    consequences = set(found) - {"lr-too-high"}
    assert {"nonfinite-activation", "nonfinite-loss", "nonfinite-gradient"} <= consequences
    assert {found[rule].cause for rule in consequences} == {"lr-too-high"}


def test_a_rate_lowered_in_time_resolves(script):
    run = train(script().linear_stack(4), range(5), {"*": ratio(0.7)})
    run = train(run, range(5, 25), {"*": ratio(0.01)})
    finding = run.findings()["update-ratio-high"]
    assert finding.state == "resolved" and finding.last_step == 4


def test_biases_norms_embeddings_and_adapters_are_not_judged(script):
    rows = [
        Row(name="e.weight", layer="e", type="Embedding", shape=(99, 64)),
        Row(name="n.weight", layer="n", type="LayerNorm", shape=(64,)),
        Row(name="q.lora_B.weight", layer="q.lora_B", type="Linear", shape=(64, 8)),
        Row(name="q.weight", layer="q", type="Linear", shape=(64, 64), trainable=False),
    ]
    assert train(script().parameters(rows), range(60), {"*": ratio(9.0)}).findings() == {}
