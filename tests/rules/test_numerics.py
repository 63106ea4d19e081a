"""The three non-finite rules and the origin that they share."""

import itertools
import math

import pytest

from trainvitals.app.rules.engine import Engine


def forward(layer="fc2", **more):
    return {
        "direction": "forward",
        "layer": layer,
        "type": "Linear",
        "nan": 12,
        "inputs": [{"shape": [32, 64], "min": -1.25, "max": 3.5, "mean": 0.1, "nonfinite": 0}],
        "spread": ["relu2", "head"],
        "spread_count": 2,
    } | more


def finite(run, start, stop):
    for step in range(start, stop):
        run.step(step, {"loss": 1.0, "tv/grad_norm": 0.5})
    return run


def test_the_layer_that_made_the_first_nan_is_the_root(script):
    run = finite(script(), 0, 37).event(37, **forward())
    for step in range(37, 60):
        run.step(step, {"loss": math.nan, "tv/grad_norm": math.nan})
    found = run.findings()
    root = found["nonfinite-activation"]
    assert (root.root, root.layers, root.first_step, root.last_step) == (True, ["fc2"], 37, 37)
    assert root.severity == "critical" and root.state == "firing"
    assert "fc2" in root.title and "37" in root.title and "-1.25 … 3.5" in root.title
    for rule in ("nonfinite-loss", "nonfinite-gradient"):
        assert found[rule].cause == "nonfinite-activation" and not found[rule].root
        assert found[rule].first_step == 37
        assert found[rule].evidence["origin"]["layer"] == "fc2"


def test_a_finite_forward_and_a_nan_loss_accuse_the_loss(script):
    run = finite(script(), 0, 20).event(20, direction="loss", nan=1)
    run.step(20, {"loss": math.nan, "tv/grad_norm": math.nan})
    found = run.findings()
    assert found["nonfinite-loss"].root
    assert found["nonfinite-gradient"].cause == "nonfinite-loss"
    assert "nonfinite-activation" not in found


def test_a_backward_event_accuses_the_gradient_and_its_parameter(script):
    run = finite(script(), 0, 20)
    run.event(20, direction="backward", layer="fc1", parameter="fc1.weight", inf=3)
    found = run.findings()
    assert found["nonfinite-gradient"].root
    assert "fc1.weight" in found["nonfinite-gradient"].title
    assert found["nonfinite-gradient"].layers == ["fc1"]


def test_bad_input_data_is_told_as_such(script):
    run = finite(script(), 0, 5).event(5, direction="input", nan=1)
    found = run.findings()["nonfinite-activation"]
    assert "data" in found.title and "missing values" in found.remedy


def test_without_an_event_the_scalars_alone_fire(script):
    run = finite(script(), 0, 5).step(5, {"loss": math.inf, "tv/grad_norm": math.nan})
    found = run.findings()
    assert found["nonfinite-loss"].first_step == found["nonfinite-gradient"].first_step == 5
    assert found["nonfinite-loss"].severity == "critical"


def test_a_skipped_batch_is_over_after_a_hundred_finite_steps(script):
    run = finite(script(), 0, 10).event(10, **forward())
    assert finite(run, 10, 110).findings()["nonfinite-activation"].state == "firing"
    assert finite(run, 110, 111).findings()["nonfinite-activation"].state == "resolved"


def test_a_printed_nan_that_never_reached_the_gradients_is_a_note(script):
    run = finite(script(), 0, 10).step(10, {"loss": math.nan, "tv/grad_norm": 0.5})
    found = finite(run, 11, 20).findings()
    assert found["nonfinite-loss"].severity == "info"


def test_validation_losses_are_not_judged(script):
    run = finite(script(), 0, 10).step(10, {"val/loss": math.nan, "val_loss": math.nan})
    assert run.findings() == {}


def test_an_event_of_another_rank_counts(script):
    first = finite(script(), 0, 50)
    second = script(rank=3).event(20, **forward(layer="fc9"))
    engine = first.engine()
    for record in second.records:
        engine.feed(second.stream, record)
    (found,) = engine.findings()
    assert found.layers == ["fc9"] and "rank 3" in found.title


@pytest.mark.parametrize("cause", ["input", "parameter", "forward", "loss"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_rank_whose_forward_pass_broke_is_the_one_root(script, cause, order):
    """All-reduce hands the gradients of rank 1 to all ranks, at the same step."""
    averaged = {"direction": "backward", "layer": "fc9", "parameter": "fc9.bias", "nan": 2}
    zero = finite(script(), 0, 20).event(20, **averaged)
    zero.step(20, {"loss": 1.0, "tv/grad_norm": math.nan})
    culprit = forward(direction=cause, fingerprint=[{"shape": [8, 4], "dtype": "float32"}])
    runs = [zero, script(rank=1).event(20, **culprit), script(rank=2).event(20, **averaged)]
    engine = Engine()
    for index in order:
        for record in runs[index].records:
            engine.feed(runs[index].stream, record)
    (root,) = [found for found in engine.findings() if found.root]
    assert root.first_step == 20 and "on rank 1" in root.title
    assert root.evidence["origin"]["rank"] == 1
    assert root.evidence["origin"]["direction"] == cause
    assert root.evidence["batch"] == "8 × 4 of float32, on rank 1"
    gradient = next(found for found in engine.findings() if found.rule == "nonfinite-gradient")
    assert gradient.cause == root.key


def test_an_update_comes_after_the_gradients_of_all_ranks(script):
    engine = finite(script(), 0, 5).event(5, direction="update", parameter="w").engine()
    other = script(rank=1).event(5, direction="backward", layer="fc1", parameter="fc1.weight")
    for record in other.records:
        engine.feed(other.stream, record)
    (found,) = engine.findings()
    assert "gradient of fc1.weight" in found.title and "rank 1" in found.title


def test_a_resumed_attempt_resolves_what_ended_the_one_before(script):
    engine = finite(script(), 0, 10).event(10, **forward()).engine()
    later = finite(script(attempt="a2"), 5, 106)
    for record in later.records[:-1]:
        engine.feed(later.stream, record)
    assert engine.findings()[0].state == "firing"
    engine.feed(later.stream, later.records[-1])
    assert engine.findings()[0].state == "resolved"
