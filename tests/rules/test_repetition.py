"""repeated-batch and same-order-every-epoch, told from looks that are far apart."""

import random
from types import SimpleNamespace

import pytest

from trainvitals.app.rules.engine import Engine
from trainvitals.hooks.wire.observed import BatchSeen, Observed
from trainvitals.hooks.wire.records import Start, Step

STREAM = SimpleNamespace(attempt="a", rank=0)


def rules_of(looks, batch_at):
    """Rules that fire when the batch of each of these steps is looked at."""
    engine = Engine()
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    for number, step in enumerate(looks, 1):
        batch = BatchSeen(shape=(16, 8), digest=batch_at(step), owner=1000)
        seen = Observed(batch=batch)
        engine.feed(STREAM, Step(seq=number, time=1.0, step=step, scalars={}, observed=seen))
    return {finding.rule for finding in engine.findings()}


@pytest.mark.parametrize("looks", [range(0, 80, 8), [3, 8, 24, 40, 48, 56, 64, 72, 80]])
def test_looks_a_whole_number_of_passes_apart_prove_no_repetition(looks):
    assert "repeated-batch" not in rules_of(looks, lambda step: f"batch {step % 8}")


@pytest.mark.parametrize("looks", [range(8), [0, 1, 2, 8, 16, 32], [0, 9, 24, 40, 55, 80, 97]])
def test_the_same_batch_in_looks_without_a_common_distance_is_a_repetition(looks):
    assert "repeated-batch" in rules_of(looks, lambda step: "the only one")


LOOKS = [*range(20), *range(20, 200, 3)]


@pytest.mark.parametrize("passes", [8, 30, 97])
def test_a_pass_in_the_same_order_is_told_whatever_its_length(passes):
    assert "same-order-every-epoch" in rules_of(LOOKS, lambda step: f"batch {step % passes}")


@pytest.mark.parametrize("seed", range(20))
def test_single_samples_that_come_back_in_another_order_are_no_repetition(seed):
    draw = random.Random(seed)
    drawn = [sample for _ in range(7) for sample in draw.sample(range(30), 30)]
    assert "same-order-every-epoch" not in rules_of(LOOKS, lambda step: f"sample {drawn[step]}")
