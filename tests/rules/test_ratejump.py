"""A blow-up that fell between two samples is blamed on the rate that rose before it."""

from types import SimpleNamespace

import pytest

from trainvitals.app.rules.engine import Engine
from trainvitals.hooks.wire.records import Start, Step

STREAM = SimpleNamespace(attempt="a", rank=0)


def judge(rates, losses):
    """The engine after one step record for each rate and loss, without any sample."""
    engine = Engine()
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    for step, (rate, loss) in enumerate(zip(rates, losses, strict=True)):
        scalars = {"tv/lr/0": rate, "train/loss": loss, "tv/grad_norm": 1.0}
        engine.feed(STREAM, Step(seq=step + 1, time=1.0, step=step, scalars=scalars))
    return engine


def falling(count, start=2.3, end=0.3):
    return [start * (end / start) ** (step / count) for step in range(count)]


def root(engine):
    return next((finding for finding in engine.findings() if finding.root), None)


def test_a_rate_that_jumps_before_the_loss_runs_away_is_the_root_from_the_jump_on():
    losses = [*falling(200), 0.3, 5.0, 9.0, *([20.0] * 97)]
    found = root(judge([1e-3] * 200 + [1.0] * 100, losses))
    assert found.rule == "lr-too-high"
    assert (found.first_step, found.state, found.severity) == (200, "firing", "critical")
    assert "0.001 to 1" in found.title
    assert "Go back to 0.001" in found.remedy


@pytest.mark.parametrize(
    "rates",
    [
        [1e-3] * 300,
        [1e-5 * 1.02**step for step in range(300)],
        [*[1e-2] * 100, *[1e-4] * 100, *[1e-2] * 100],
    ],
    ids=["constant", "warm-up", "warm restart"],
)
def test_a_rate_that_did_not_jump_over_all_before_is_not_blamed(rates):
    losses = [*falling(200), 0.3, 5.0, 9.0, *([20.0] * 97)]
    rules = {finding.rule for finding in judge(rates, losses).findings()}
    assert "update-ratio-high" not in rules


def test_a_warm_up_between_two_records_of_the_rate_is_no_jump():
    engine = Engine()
    engine.feed(STREAM, Start(seq=0, time=1.0, project="p", name="n"))
    for step, loss in enumerate([*falling(110), float("nan"), float("nan")]):
        scalars = {"train/loss": loss}
        if step in (10, 100):
            scalars["tv/lr/0"] = 1e-5 * step
        engine.feed(STREAM, Step(seq=step + 1, time=1.0, step=step, scalars=scalars))
    assert root(engine).rule == "nonfinite-loss"


def test_a_jump_that_the_loss_takes_well_is_no_finding():
    assert not judge([1e-3] * 200 + [1e-1] * 100, falling(300)).findings()


def test_a_jump_that_triples_a_tiny_loss_is_no_finding():
    losses = falling(200, end=1e-3) + [4e-3] * 100
    rules = {f.rule for f in judge([1e-3] * 200 + [1e-2] * 100, losses).findings()}
    assert "update-ratio-high" not in rules


def test_a_run_that_recovered_from_the_jump_is_told_so():
    losses = [*falling(200), 0.3, 5.0, 9.0, *([20.0] * 20), *falling(400, start=2.0, end=0.2)]
    found = root(judge([1e-3] * 200 + [1.0] * 423, losses))
    assert (found.rule, found.state) == ("lr-too-high", "resolved")
