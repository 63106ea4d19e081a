"""input-bound and loader-workers-zero: which waits count, and how severe they are."""

from types import SimpleNamespace

import numpy as np
import pytest

from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.waiting import InputBound, LoaderWorkersZero
from trainvitals.hooks.wire.observed import LoaderSeen, Observed
from trainvitals.hooks.wire.records import Start, Step

STREAM = SimpleNamespace(attempt="a", rank=0)


def found(wait, *, step=0.1, steps=300, every=1, workers=0, in_memory=False):
    """Severities by rule; `wait` gives the seconds that a step waits."""
    engine = Engine([InputBound, LoaderWorkersZero])
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    loader = LoaderSeen(batches=50, workers=workers, in_memory=in_memory)
    for at in range(0, steps, every):
        scalars = {"tv/data_wait": wait(at), "tv/step_time": step}
        seen = Observed(loader=loader) if at == 0 else None
        engine.feed(STREAM, Step(seq=at + 1, time=1.0, step=at, scalars=scalars, observed=seen))
    return {one.rule: one.severity for one in engine.findings()}


@pytest.mark.parametrize(
    "wait, severity", [(0.012, "info"), (0.019, "info"), (0.021, "warning"), (0.08, "warning")]
)
@pytest.mark.parametrize("every", [1, 7, 30])
def test_a_wait_is_noted_from_a_twentieth_and_warned_of_from_a_fifth(wait, severity, every):
    assert found(lambda at: wait, every=every, steps=600)["input-bound"] == severity


def test_a_loader_that_keeps_up_is_silent():
    noise = np.random.default_rng(0)
    assert found(lambda at: 0.002 * noise.random(), steps=2000) == {}


def test_the_first_batch_of_an_epoch_and_the_first_steps_do_not_count():
    assert found(lambda at: 3.0 if at < 20 or at % 50 == 0 else 0.001, step=0.06) == {}


def test_a_large_share_of_nearly_nothing_does_not_count_until_it_adds_up():
    assert found(lambda at: 0.002, step=0.003, steps=5_000) == {}
    assert found(lambda at: 0.002, step=0.003, steps=31_000, every=10)["input-bound"] == "warning"


def test_fewer_steps_than_a_window_are_not_judged():
    assert found(lambda at: 0.08, steps=115) == {}


def test_no_worker_is_told_only_where_data_are_waited_for_and_are_not_in_memory():
    assert found(lambda at: 0.03)["loader-workers-zero"] == "info"
    assert "loader-workers-zero" not in found(lambda at: 0.03, in_memory=True)
    assert "loader-workers-zero" not in found(lambda at: 0.03, workers=2)
    assert "loader-workers-zero" not in found(lambda at: 0.001)


def test_it_is_over_when_the_loader_has_caught_up():
    engine = Engine([InputBound])
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    for at in range(600):
        scalars = {"tv/data_wait": 0.05 if at < 200 else 0.001, "tv/step_time": 0.1}
        engine.feed(STREAM, Step(seq=at + 1, time=1.0, step=at, scalars=scalars))
    (finding,) = engine.findings()
    assert (finding.state, finding.first_step) == ("resolved", 20)
