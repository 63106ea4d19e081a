"""gpu-memory-growth: a leak is told whenever it begins, what only comes and goes is not."""

from types import SimpleNamespace

import numpy as np
import pytest

from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.memory import GpuMemoryGrowth
from trainvitals.hooks.wire.records import Start, Step

STREAM = SimpleNamespace(attempt="a", rank=0)


def engine_of(held, *, readings=200, every=10, device=0):
    """`held` gives the GiB that tensors hold after a step."""
    engine = Engine([GpuMemoryGrowth])
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    for number in range(readings):
        scalars = {f"tv/system/gpu_memory/{device}": held(number * every)}
        record = Step(seq=number + 1, time=1.0, step=number * every, scalars=scalars)
        engine.feed(STREAM, record)
    return engine


def leak(rate, begin=0):
    """A tenth of a GiB up and down within steps, and `rate` of the level kept every 500 steps."""
    noise = np.random.default_rng(0)

    def held(step):
        return 4.0 * (1 + rate * max(step - begin, 0) / 500) + 0.1 * noise.random()

    return held


@pytest.mark.parametrize("rate", [0.08, 0.2, 1.0])
def test_a_leak_is_told_with_its_rate(rate):
    (finding,) = engine_of(leak(rate)).findings()
    assert finding.severity == "warning"
    told = float(finding.title.split(" hold ")[1].split(" %")[0]) / 100
    assert told == pytest.approx(rate, rel=0.35)


def test_a_leak_that_begins_late_is_told():
    (finding,) = engine_of(leak(0.3, begin=5_000), readings=900).findings()
    assert 4_000 <= finding.first_step <= 6_500


def test_the_device_that_leaks_is_named():
    (finding,) = engine_of(leak(0.3), device=3).findings()
    assert finding.evidence["where"] == "GPU 3"


@pytest.mark.parametrize("seed", range(20))
def test_samples_of_different_lengths_are_no_leak(seed):
    noise = np.random.default_rng(seed)
    assert engine_of(lambda step: 4.0 + 3.0 * noise.random(), readings=400).findings() == []


def test_what_is_made_in_the_first_steps_and_a_buffer_that_was_filled_are_no_leak():
    assert engine_of(lambda step: 2.0 if step < 20 else 6.0).findings() == []
    assert engine_of(lambda step: 4.0 + min(step, 200) / 400, readings=400).findings() == []


def test_a_slow_growth_within_the_limit_is_none():
    assert engine_of(leak(0.02)).findings() == []


def test_without_a_gpu_it_does_not_apply():
    engine = Engine([GpuMemoryGrowth])
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    engine.feed(STREAM, Step(seq=1, time=1.0, step=0, scalars={"tv/system/memory": 3.0}))
    assert [state.state for state in engine.states()] == ["not applicable"]
