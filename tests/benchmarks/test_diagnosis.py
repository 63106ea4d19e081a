"""The corpus states what it must, its arithmetic is right, and a sample of it is judged right."""

import pytest
import torch

from benchmarks.diagnosis import report
from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.corpus import CASES
from benchmarks.diagnosis.judge import Found, Verdict, judge
from benchmarks.diagnosis.score import first_root, names_fault, place_right, score
from benchmarks.diagnosis.training import run


def verdict(case, *found, classic=None):
    return Verdict(case, 0, 400, 10, list(found), classic or {})


def found(rule, severity="warning", root=True, first=0, seen=10, layers=(), direction=""):
    return Found(rule, severity, root, first, seen, list(layers), "title", direction)


def test_the_corpus_is_as_large_as_promised():
    faults = [case for case in CASES.values() if case.roots]
    healthy = [case for case in CASES.values() if case.kind == "healthy"]
    assert len(faults) >= 60 and len(healthy) >= 60
    held_out = sum(case.held_out for case in CASES.values()) / len(CASES)
    assert 1 / 3 <= held_out <= 1 / 2
    usual = sum(case.interval is None for case in CASES.values()) / len(CASES)
    assert usual >= 1 / 2


def test_every_fault_has_its_fixed_twin():
    assert {f"twin@{case.name.split('@')[1]}" for case in CASES.values() if case.roots} <= set(
        CASES
    )


def test_what_is_held_out_depends_on_the_name_alone():
    case = Case("rate-times-100@mlp-sgd", "dynamic", lambda: None, ("a",), onset=7)
    assert case.held_out == CASES[case.name].held_out
    assert case.seed(1) == 1 + 1000 * case.held_out


def test_recall_top_place_and_delay_are_counted():
    right = found("trainable-not-in-optimizer", "critical", first=2, seen=24, layers=["fc2"])
    wrong = found("loss-divergence", "critical", first=1)
    total = score(
        [
            verdict("layer-left-out@mlp-sgd", right),
            verdict("layer-left-out@cnn-adam", wrong, right),
            verdict("layer-left-out@tabular", found("trainable-not-in-optimizer", "info")),
        ]
    )
    assert (str(total.recall), str(total.top)) == ("67 % (2/3)", "33 % (1/3)")
    assert (total.place.right, total.place.of) == (2, 2)
    assert total.delays == [24, 24]
    assert (total.precision.right, total.precision.of) == (2, 3)


def test_whatever_was_ever_shown_in_a_healthy_run_is_a_false_alarm():
    total = score(
        [verdict("twin@mlp-sgd", found("loss-divergence", "critical"), found("loss-spike", "info"))]
    )
    assert total.per_clean_run == "1.000 (1/1, 1 critical)"


def test_a_nan_is_right_only_at_its_own_step_module_and_direction():
    right = found("nonfinite-activation", "critical", True, 171, 171, [], "input")
    for other in (
        found("nonfinite-activation", "critical", True, 171, 172, [], "input"),
        found("nonfinite-activation", "critical", True, 171, 171, [], "forward"),
        found("nonfinite-loss", "critical", True, 171, 171, [], "input"),
    ):
        assert score([verdict("nan-in-the-data@mlp-sgd", other)]).origin.right == 0
    assert score([verdict("nan-in-the-data@mlp-sgd", right)]).origin.right == 1


def test_the_report_names_every_miss():
    text = report.text(
        [verdict("layer-left-out@mlp-sgd"), verdict("twin@mlp-sgd", found("loss-spike"))]
    )
    assert "layer-left-out@mlp-sgd | 0 | trainable-not-in-optimizer | nothing" in text
    assert "twin@mlp-sgd | 0 | nothing | title" in text


SICK = (
    "rate-times-1000@mlp-sgd",
    "deep-sigmoid@mlp-sgd",
    "dead-later@regression",
    "never-zeroed@mlp-sgd",
    "layer-left-out@tabular",
    "labels-shuffled@mlp-sgd",
    "stale-copy-is-evaluated@tabular",
    "loss-of-nothing@mlp-sgd",
    "log-of-zero@wine-tanh",
    "schedule-per-batch@tabular",
)
HEALTHY = (
    "twin@regression",
    "healthy-batch-of-4",
    "healthy-head-only-in-the-optimizer",
    "healthy-sparse-autoencoder",
    "healthy-cyclic-rate",
    "healthy-policy-gradient",
)


def judged(name, tmp_path):
    """At a fixed interval: what a test samples must not depend on how busy the machine is."""
    case = CASES[name]
    torch.manual_seed(0)
    run(case.build(), tmp_path, 0, case.interval or 5)
    return case, judge(case, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SICK)
def test_a_sick_training_gets_the_right_root_and_place(name, tmp_path):
    case, seen = judged(name, tmp_path)
    top = first_root(seen)
    assert top is not None and names_fault(top, case), seen.found
    assert not case.places or place_right(top, case)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_raises_nothing_above_a_note(name, tmp_path):
    _, seen = judged(name, tmp_path)
    assert seen.serious == []
