"""gradient-vanishing-depth and gradient-exploding."""

import math
import random

from trainvitals.hooks.wire.records import Row

WEIGHT = 0.072


def falling(depth, decades, best=0.005):
    """Gradients of fc1 … fc<depth> that fall by `decades` a layer towards the input."""
    return {
        f"fc{index}.weight": {"grad_rms": best * 10 ** (-decades * (depth - index))}
        for index in range(1, depth + 1)
    }


def sample(run, steps, overrides, loss=2.3):
    for step in steps:
        run.step(step, {"loss": loss}, overrides)
    return run


def test_a_steady_fall_towards_the_input_names_the_starved_layers(script):
    run = sample(script().linear_stack(8), [0, 1, 2, 7, 12], falling(8, 0.52))
    found = run.findings()["gradient-vanishing-depth"]
    assert found.first_step == 0 and found.severity == "warning"
    # fc8 is best fed; two decades below are those 4 and more layers (2.08 decades) nearer the input
    assert found.layers == ["fc1", "fc2", "fc3", "fc4"]
    assert abs(found.evidence["slope"] + 0.52) < 0.01
    assert abs(found.evidence["span"] - 7 * 0.52) < 0.01
    assert "0.52 decades per layer" in found.title
    assert "fc1 … fc4 (4 layers)" in found.title
    assert found.evidence["where"] == "fc1 … fc4 (4 layers)"
    assert "over fc1 … fc8 (8 layers)" in found.evidence["seen"]


def test_of_very_many_layers_the_first_are_named_and_all_are_counted(script):
    run = sample(script().linear_stack(120), [0, 1, 2, 7, 12], falling(120, 0.31))
    found = run.findings()["gradient-vanishing-depth"]
    assert "fc1 … fc113 (113 layers)" in found.title  # two decades are 6.5 layers
    assert found.layers == [f"fc{number}" for number in range(1, 51)]
    assert found.concerned == 113
    assert found.evidence["where"] == "fc1 … fc113 (113 layers)"


def test_a_healthy_stack_of_any_size_of_gradient_is_quiet(script):
    for best in (1e-12, 1e-3, 1e3):
        run = sample(script().linear_stack(16), range(20), falling(16, 0.02, best))
        assert run.findings() == {}


def test_a_shallow_fall_over_few_decades_is_quiet(script):
    assert sample(script().linear_stack(5), range(20), falling(5, 0.6)).findings() == {}


def test_one_starved_layer_among_healthy_ones_is_no_slope(script):
    run = sample(script().linear_stack(8), range(20), {"fc1.weight": {"grad_rms": 1e-12}})
    assert "gradient-vanishing-depth" not in run.findings()


def test_gradients_that_underflow_to_zero_are_starved_too(script):
    gradients = falling(8, 1.2)
    gradients["fc1.weight"] = {"grad_rms": 0.0}
    found = sample(script().linear_stack(8), range(5), gradients).findings()
    assert found["gradient-vanishing-depth"].layers[0] == "fc1"


def test_zeros_below_a_dead_layer_are_not_its_business(script):
    gradients = {f"fc{index}.weight": {"grad_rms": 0.0} for index in range(1, 5)}
    assert sample(script().linear_stack(8), range(20), gradients).findings() == {}


def test_three_layers_are_not_comparable(script):
    run = sample(script().linear_stack(3), range(20), falling(3, 2))
    assert run.findings() == {}
    assert run.states()["gradient-vanishing-depth"] == "not applicable"


def test_a_flat_loss_makes_it_critical_and_is_its_consequence(script):
    run = script().linear_stack(8)
    for step in range(250):
        scalars = {"loss": 2.3 + 0.01 * math.sin(step)}
        scalars |= {"tv/label_entropy": 2.3, "tv/label_classes": 10, "tv/label_count": 32 * step}
        run.step(step, scalars, falling(8, 0.6) if step < 20 or step % 10 == 0 else None)
    found = run.findings()
    assert found["gradient-vanishing-depth"].severity == "critical"
    assert found["gradient-vanishing-depth"].root
    assert found["loss-stuck-at-prior"].cause == "gradient-vanishing-depth"


def test_a_cured_stack_resolves(script):
    run = sample(script().linear_stack(8), range(10), falling(8, 0.6))
    found = sample(run, range(10, 15), {}).findings()["gradient-vanishing-depth"]
    assert found.state == "resolved" and found.last_step == 9


def test_biases_embeddings_and_frozen_rows_are_not_compared(script):
    run = script().parameters(
        [
            *(Row(name=f"e{i}", layer=f"e{i}", type="Embedding", shape=(9, 9)) for i in range(6)),
            *(Row(name=f"b{i}", layer=f"b{i}", type="Linear", shape=(9,)) for i in range(6)),
            Row(name="head", layer="head", type="Linear", shape=(9, 9)),
        ]
    )
    steep = {f"{kind}{i}": {"grad_rms": 10.0 ** (i - 8)} for kind in "eb" for i in range(6)}
    assert sample(run, range(20), steep).findings() == {}


def norms(run, start, values, losses):
    for offset, (norm, loss) in enumerate(zip(values, losses, strict=True)):
        run.step(start + offset, {"tv/grad_norm": norm, "loss": loss})
    return run


def noisy(count, seed=1, spread=0.3):
    generator = random.Random(seed)
    return [math.exp(generator.gauss(0, spread)) for _ in range(count)]


def test_an_explosion_that_costs_the_loss_is_found_at_its_first_step(script):
    losses = [2.3 * 0.98**step for step in range(100)]
    run = norms(script(), 0, noisy(100), losses)
    norms(run, 100, [30, 100, 300, 1000, 3000], [2, 5, 10, 20, 40])
    found = run.findings()["gradient-exploding"]
    assert found.first_step == 100 and found.severity == "warning"
    run.step(105, {"tv/grad_norm": math.nan, "loss": math.nan})
    assert run.findings()["gradient-exploding"].severity == "critical"


def test_two_outliers_of_a_thousand_times_are_normal(script):
    values = noisy(300)
    values[150] = values[155] = 1000.0
    assert norms(script(), 0, values, [2.0] * 300).findings() == {}


def test_gradients_that_grow_while_the_loss_falls_are_a_note(script):
    # A net that leaves its plateau: the norm rises a hundredfold, the loss falls.
    values = [0.01] * 40 + [0.01 * 10 ** min(2, i / 10) for i in range(60)]
    losses = [2.3] * 40 + [2.3 * 0.95**i for i in range(60)]
    found = norms(script(), 0, values, losses).findings()
    assert {finding.severity for finding in found.values()} <= {"info"}


def test_heavy_tailed_norms_of_a_healthy_run_stay_below_a_warning(script):
    generator = random.Random(7)
    values = [math.exp(generator.gauss(0, 1)) for _ in range(2000)]
    losses = [2.3 * (1 + step / 50) ** -0.5 * x for step, x in enumerate(noisy(2000, 3, 0.1))]
    found = norms(script(), 0, values, losses).findings()
    assert {finding.severity for finding in found.values()} <= {"info"}


def test_a_spike_at_a_vanished_loss_is_a_note(script):
    values = [10 ** (-step / 50) for step in range(200)] + [0.5, 0.4, 0.3, 0.2] + [1e-4] * 50
    losses = [2.3 * 10 ** (-step / 40) for step in range(200)] + [0.02] * 4 + [1e-4] * 50
    found = norms(script(), 0, values, losses).findings()
    assert {finding.severity for finding in found.values()} <= {"info"}
