"""resume-discontinuity: which jumps of the loss between two process lives count."""

import random
from types import SimpleNamespace

import pytest

from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.resume import ResumeDiscontinuity
from trainvitals.hooks.wire.records import Start, Step


def falling(step):
    return 0.2 + 2.0 * 0.97**step


def lives(*spans):
    """The rule's findings on lives of `(first step, last step, loss of a step)`, with a noise of 5 %."""
    engine, draw = Engine([ResumeDiscontinuity]), random.Random(0)
    for number, (first, last, loss) in enumerate(spans):
        stream = SimpleNamespace(attempt=f"{number}", rank=0)
        engine.feed(stream, Start(seq=0, time=1.0, project="p", name="n"))
        for seq, step in enumerate(range(first, last), 1):
            scalars = {"train/loss": loss(step) * draw.uniform(0.95, 1.05)}
            engine.feed(stream, Step(seq=seq, time=1.0, step=step, scalars=scalars))
            engine = Engine.load(engine.save(), [ResumeDiscontinuity])
    return engine.findings()


def test_a_training_that_starts_anew_in_the_middle_is_told_with_its_step():
    (found,) = lives((0, 150, falling), (150, 200, lambda step: falling(step - 150)))
    assert (found.first_step, found.severity, found.state) == (150, "warning", "firing")


@pytest.mark.parametrize("begin", [150, 120])
def test_a_training_that_goes_on_where_it_was_is_fine(begin):
    assert lives((0, 150, falling), (begin, 200, falling)) == []


def test_losses_after_the_checkpoint_were_lost_and_do_not_count():
    assert lives((0, 150, falling), (60, 90, falling)) == []


def test_a_small_step_up_and_a_life_from_the_start_are_none():
    assert lives((0, 150, falling), (150, 200, lambda step: 1.2 * falling(step))) == []
    assert lives((0, 150, falling), (0, 60, falling)) == []


def test_going_on_once_more_and_well_resolves_it():
    (found,) = lives((0, 150, falling), (150, 200, lambda step: falling(0)), (150, 200, falling))
    assert found.state == "resolved"
