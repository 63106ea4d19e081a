"""train-val-shift: which differences between training and evaluation count, and how severe they are."""

from types import SimpleNamespace

import numpy as np
import pytest

from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.shift import TrainValShift
from trainvitals.hooks.wire.observed import BatchSeen, Evaluation, Observed
from trainvitals.hooks.wire.records import Start, Step

STREAM = SimpleNamespace(attempt="a", rank=0)


def batch(values):
    """What is seen of inputs `(n, width)`."""
    return BatchSeen(shape=values.shape, mean=float(values.mean()), std=float(values.std()))


def severity(evaluated, *, training=lambda r: r.normal(size=(32, 16)), losses=(0.5, 5.0), every=20):
    """Of the finding on a training of 100 steps; `evaluated` makes an evaluation's inputs; None without one."""
    r, engine = np.random.default_rng(0), Engine([TrainValShift])
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    for step in range(100):
        phases = step // every
        inputs = batch(evaluated(r)) if step % every == 0 and phases else None
        told = Evaluation(phases=phases, forwards=phases, inputs=inputs) if inputs else None
        seen = Observed(batch=batch(training(r)), evaluation=told)
        scalars = {"train/loss": losses[0], "val/loss": losses[1]}
        record = Step(seq=step + 1, time=1.0, step=step, scalars=scalars, observed=seen)
        engine.feed(STREAM, record)
    found = [one.severity for one in engine.findings()]
    return found[0] if found else None


@pytest.mark.parametrize("scale, shift", [(5.0, 0.0), (0.25, 0.0), (1.0, 1.5), (1.0, -3.0)])
def test_another_scale_or_mean_that_costs_is_a_warning(scale, shift):
    assert severity(lambda r: scale * r.normal(size=(64, 16)) + shift) == "warning"


def test_a_difference_that_costs_nothing_is_a_note():
    assert severity(lambda r: 0.25 * r.normal(size=(64, 16)), losses=(0.5, 0.45)) == "info"


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (1.5, 0.3), (0.7, -0.5)])
def test_what_augmentation_changes_is_none(scale, shift):
    assert severity(lambda r: scale * r.normal(size=(64, 16)) + shift) is None


def test_training_batches_that_differ_among_themselves_widen_the_limits():
    def wild(r):
        return r.lognormal(0, 1.5) * r.normal(size=(32, 16))

    assert severity(lambda r: 4.0 * r.normal(size=(64, 16)), training=wild) is None


def test_few_samples_and_calls_at_every_step_are_not_judged():
    assert severity(lambda r: 9.0 * r.normal(size=(4, 16))) is None
    assert severity(lambda r: 9.0 * r.normal(size=(64, 16)), every=1) is None
