"""Rules of scales, saturation, precision and mobility."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainvitals.hooks.wire.records import Row

BF16 = {"weight_absmax": 0.125, "unchanged_fraction": 0.95}


def sampled(run, steps, parameters=None, activations=None, loss=lambda step: 2.3 * 0.99**step):
    for step in steps:
        run.step(step, {"loss": loss(step), "tv/lr/0": 0.01}, parameters, activations)
    return run


def tanh_stack(script):
    rows = [
        Row(name=f"{kind}{i}", layer=f"{kind}{i}", type=type_, shape=(32, 64))
        for i in (1, 2, 3)
        for kind, type_ in (("fc", "Linear"), ("tanh", "Tanh"))
    ]
    return script().activations(
        [*rows, Row(name="head", layer="head", type="Linear", shape=(32, 10))]
    )


def test_saturation_needs_three_samples_and_a_third_of_the_units(script):
    half = {"tanh2": {"saturated_fraction": 0.5}}
    assert sampled(tanh_stack(script), [0, 1], activations=half).findings() == {}
    finding = sampled(tanh_stack(script), [0, 1, 2], activations=half).findings()[
        "saturated-activation"
    ]
    assert (finding.layers, finding.first_step, finding.severity) == (["tanh2"], 0, "warning")
    less = {"tanh2": {"saturated_fraction": 0.25}}
    assert sampled(tanh_stack(script), range(30), activations=less).findings() == {}


def test_an_output_sigmoid_may_saturate(script):
    rows = [
        Row(name="fc", layer="fc", type="Linear", shape=(32, 1)),
        Row(name="out", layer="out", type="Sigmoid", shape=(32, 1)),
    ]
    run = script().activations(rows)
    assert (
        sampled(run, range(30), activations={"out": {"saturated_fraction": 1.0}}).findings() == {}
    )


def test_activations_that_shrink_by_a_factor_a_layer_are_found(script):
    run = script().relu_stack(8)
    shrinking = {f"fc{i}": {"rms": 10.0 ** (-0.4 * i)} for i in range(1, 9)}
    finding = sampled(run, range(3), activations=shrinking).findings()["activation-scale-depth"]
    assert abs(finding.evidence["slope"] + 0.4) < 1e-4 and finding.layers[0] == "fc1"


@given(st.lists(st.floats(0.3, 3.0), min_size=8, max_size=8))
def test_sizes_within_a_decade_are_never_a_trend(sizes):
    from tests.rules.conftest import Script

    run = Script().relu_stack(8)
    rows = {f"fc{i}": {"rms": size} for i, size in enumerate(sizes, 1)}
    assert "activation-scale-depth" not in sampled(run, range(6), activations=rows).findings()


def test_weights_in_16_bits_that_stand_still_are_found_and_in_32_bits_not(script):
    found = sampled(script().linear_stack(3), range(5), {"*": BF16}).findings()
    assert found["low-precision-update-lost"].layers == ["fc1", "fc2", "fc3", "head"]
    full = BF16 | {"weight_absmax": float(np.float32(0.1))}
    assert sampled(script().linear_stack(3), range(5), {"*": full}).findings() == {}


def test_eps_rules_only_where_gradients_are_tiny(script):
    tiny = {"adam_eps_fraction": 0.9, "grad_rms": 1e-9}
    level = lambda step: 2.3 + 0.01 * (step % 7)  # noqa: E731
    assert (
        "adam-eps-dominates"
        in sampled(script().linear_stack(3), range(6), {"*": tiny}, loss=level).findings()
    )
    chosen = tiny | {"grad_rms": 1e-3}
    assert sampled(script().linear_stack(3), range(6), {"*": chosen}, loss=level).findings() == {}


def test_a_rate_that_moves_nothing_is_found_and_a_loss_that_falls_excuses_it(script):
    low = {"*": {"update_ratio": 1e-7}}
    level = lambda step: 2.3 + 0.01 * (step % 7)  # noqa: E731
    finding = sampled(script().linear_stack(3), range(150), low, loss=level).findings()[
        "update-ratio-low"
    ]
    assert finding.severity == "warning" and "0.01 is too low" in finding.title
    assert "update-ratio-low" not in sampled(script().linear_stack(3), range(150), low).findings()


def test_growth_is_measured_from_a_usual_start(script):
    run = sampled(script().linear_stack(2), [0], {"fc1.weight": {"weight_rms": 1e-4}})
    grown = sampled(run, [50, 100], {"fc1.weight": {"weight_rms": 0.3}})  # 3000 times, by design
    assert grown.findings() == {}
    finding = sampled(run, [150, 200], {"fc1.weight": {"weight_rms": 20.0}}).findings()[
        "weight-norm-growth"
    ]
    assert finding.layers == ["fc1"] and finding.severity == "warning"
