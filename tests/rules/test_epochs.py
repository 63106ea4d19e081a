"""epoch-position-correlated: passes over the data are compared place by place."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.epochs import _ranks, _shifted, _ups_and_downs
from trainvitals.hooks.wire.observed import LoaderSeen, Observed
from trainvitals.hooks.wire.records import Start, Step

RULE = "epoch-position-correlated"
PLACES = 200


def judged(losses_of_pass, passes=4, places=PLACES):
    """Finding and state of the rule after passes with these losses, on top of a falling curve."""
    engine = Engine()
    records = [Start(seq=0, time=1.0, project="p", name="n")]
    for number in range(passes):
        for place, more in enumerate(losses_of_pass(number)):
            step = number * places + place
            seen = Observed(loader=LoaderSeen(batches=places, began=step)) if place == 0 else None
            loss = 2.0 / (1 + step / 300) + more
            scalars = {"train/loss": loss}
            records.append(
                Step(seq=step + 1, time=1.0 + step, step=step, scalars=scalars, observed=seen)
            )
    for record in records:
        engine.feed(SimpleNamespace(attempt="a", rank=0), record)
    assert engine.broken == {}
    finding = next((found for found in engine.findings() if found.rule == RULE), None)
    return finding, {state.rule: state for state in engine.states()}[RULE].state


def noise(seed, scale=0.05, places=PLACES):
    return np.random.default_rng(seed).normal(0, scale, places)


def test_passes_in_the_same_order_are_found_through_as_much_noise():
    finding, _ = judged(lambda number: noise(0) + noise(1 + number))
    assert finding is not None
    assert finding.severity == "warning"
    assert finding.first_step in (PLACES, 2 * PLACES)


def test_passes_in_an_order_of_their_own_are_fine():
    finding, state = judged(lambda number: noise(number))
    assert finding is None
    assert state == "ok"


def test_what_comes_again_at_a_fixed_distance_is_not_the_order_of_the_data():
    wave = 0.2 * np.sin(np.arange(PLACES) * 2 * np.pi / 10)
    finding, _ = judged(lambda number: wave + noise(number, 0.02))
    assert finding is None


@pytest.mark.parametrize(("passes", "places"), [(2, PLACES), (4, 90)])
def test_two_passes_or_short_ones_say_too_little(passes, places):
    finding, _ = judged(lambda number: noise(0, places=places), passes, places)
    assert finding is None


def test_the_correlation_is_spearmans_with_equal_values_too():
    rng = np.random.default_rng(3)
    one, two = rng.integers(0, 20, 300).astype(float), rng.integers(0, 20, 300).astype(float)
    two += 0.5 * one
    assert (_ranks(one) * _ranks(two)).mean() == pytest.approx(spearmanr(one, two).statistic)


def test_a_shift_is_looked_for_either_way():
    rng = np.random.default_rng(4)
    long = rng.normal(size=130)
    one, two = _ranks(long[:100]), _ranks(long[7:107])
    assert _shifted(one, two) > 0.85
    assert _shifted(two, one) > 0.85
    assert _shifted(one, _ranks(rng.normal(size=100))) < 0.5


def test_a_slow_fall_leaves_no_ups_and_downs():
    fall = 3.0 / (1 + np.arange(400) / 50)
    assert np.abs(_ups_and_downs(fall)[20:-20]).max() < 0.02
