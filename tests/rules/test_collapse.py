"""prediction-collapse: which predictions are a collapse, from when on, and how severe."""

from types import SimpleNamespace

import numpy as np
import pytest

from trainvitals.app.rules.collapse import PredictionCollapse
from trainvitals.app.rules.engine import Engine
from trainvitals.hooks.wire.observed import LossCall, Observed, Targets
from trainvitals.hooks.wire.records import Layout, Row, Start, Step

STREAM = SimpleNamespace(attempt="a", rank=0)


def severity(call, *, steps=800, every=10, several=False):
    """Of the finding on a training whose loss call at a step is `call(step)`; None without one."""
    engine = Engine([PredictionCollapse])
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    if several:
        rows = [Row(name=f"model{i}.fc", layer=f"model{i}.fc", type="Linear") for i in (0, 1)]
        layout = Layout(seq=1, time=1.0, step=0, group=0, kind="parameter", rows=rows, columns=[])
        engine.feed(STREAM, layout)
    for number, step in enumerate(range(0, steps, every), 2):
        seen = Observed(losses=[call(step)])
        engine.feed(STREAM, Step(seq=number, time=1.0, step=step, scalars={}, observed=seen))
    found = [one.severity for one in engine.findings()]
    return found[0] if found else None


def classes(predicted, shares, batch=64):
    """A call whose labels are drawn by `shares`; `predicted` makes predictions of the labels."""
    noise = np.random.default_rng(0)

    def call(step):
        labels = noise.choice(len(shares), size=batch, p=shares)
        said, true = (np.bincount(a, minlength=len(shares)) for a in (predicted(labels), labels))
        counts = [{str(c): int(n) for c, n in enumerate(a) if n} for a in (said, true)]
        targets = Targets(count=batch, classes=counts[1], pairs=batch - 1)
        return LossCall(kind="cross-entropy", predicted=counts[0], targets=targets)

    return call


def numbers(spread, std=1.0):
    targets = Targets(count=64, real=True, mean=0.0, std=std, low=-3.0, high=3.0)
    return lambda step: LossCall(kind="mse", spread=spread, targets=targets)


EVEN = [0.25] * 4


@pytest.mark.parametrize(
    "steps, expected", [(100, None), (150, "info"), (400, "warning"), (600, "critical")]
)
def test_one_class_for_all_is_the_worse_the_longer_it_lasts(steps, expected):
    assert severity(classes(lambda y: 0 * y + 2, EVEN), steps=steps) == expected


def test_a_model_that_is_right_or_guesses_is_no_collapse():
    noise = np.random.default_rng(1)
    assert severity(classes(lambda y: y, EVEN)) is None
    assert severity(classes(lambda y: noise.integers(0, 4, len(y)), EVEN)) is None


def test_the_limit_follows_the_labels_and_uneven_ones_give_a_note():
    right = classes(lambda y: y, [0.99, 0.01])
    assert severity(right) is None
    assert severity(classes(lambda y: 0 * y, [0.9, 0.1])) == "info"
    assert severity(classes(lambda y: 0 * y, [0.6, 0.4])) == "critical"


def test_labels_of_one_class_say_nothing():
    assert severity(classes(lambda y: y, [1.0])) is None


def test_a_fresh_model_that_prefers_one_class_is_told_nothing_of():
    right, one = classes(lambda y: y, EVEN), classes(lambda y: 0 * y, EVEN)
    assert severity(lambda step: one(step) if step < 100 else right(step)) is None
    assert severity(lambda step: right(step) if step < 400 else one(step)) == "warning"


def test_few_samples_are_not_judged():
    assert severity(classes(lambda y: 0 * y, EVEN, batch=4), steps=300) is None
    assert severity(classes(lambda y: 0 * y, EVEN, batch=4), steps=8000) == "critical"


def test_numbers_that_hardly_vary_are_a_collapse():
    assert severity(numbers(0.005)) == "critical"
    assert severity(numbers(0.05)) is None
    assert severity(numbers(0.0, std=0.0)) is None


def test_models_that_play_against_each_other_are_not_judged():
    assert severity(classes(lambda y: 0 * y, EVEN), several=True) is None


def test_binary_targets_are_classes_and_shares_are_none():
    def binary(mean, std):
        targets = Targets(count=64, real=True, mean=mean, std=std, low=0.0, high=1.0)
        return lambda step: LossCall(kind="bce-logits", predicted={"1": 64}, targets=targets)

    assert severity(binary(0.5, 0.5)) == "critical"
    assert severity(binary(0.5, 0.2)) is None
