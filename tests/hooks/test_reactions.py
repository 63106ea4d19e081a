"""What `on_finding` does in the training, with what the training sees itself."""

import math

import pytest
import torch
from torch import nn
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import trainvitals.hooks as tv

STEPS, BROKEN = 12, 5


class Loop:
    """A training whose batch holds a NaN at one step."""

    def __init__(self, on_finding=None, log=False, broken=BROKEN):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.phase, self.step = "", -1
        self.log, self.broken = log, broken
        tv.init(project="reactions", on_finding=on_finding)
        tv.watch(self.model, self.optimizer)

    def run(self, until=lambda: False):
        for self.step in range(STEPS):
            x = torch.randn(16, 4)
            if self.step == self.broken:
                x[0, 0] = math.nan
            self.phase = "forward"
            loss = self.model(x).square().mean()
            self.phase = "zero_grad"
            self.optimizer.zero_grad()
            self.phase = "backward"
            loss.backward()
            self.phase = "step"
            self.optimizer.step()
            self.phase = "log"
            if self.log:
                tv.log({"loss": loss})
            if until():
                break
        return self

    @property
    def finite(self):
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())


def test_by_default_nothing_is_raised():
    loop = Loop(log=True).run(until=tv.should_stop)
    assert loop.step == STEPS - 1 and not loop.finite


def test_raise_comes_from_the_optimizers_step_before_the_weights_are_spoiled():
    loop = Loop("raise")
    with pytest.raises(tv.FindingError) as raised:
        loop.run()
    assert (loop.step, loop.phase) == (BROKEN, "step")
    assert loop.finite
    finding = raised.value.finding
    assert (finding.rule, finding.severity) == ("nonfinite-activation", "critical")
    assert finding.step == BROKEN and str(BROKEN) in str(raised.value)


def test_a_training_that_catches_it_goes_on_and_is_not_stopped_twice():
    loop = Loop("raise")
    with pytest.raises(tv.FindingError):
        loop.run()
    loop.broken = -1
    assert loop.run().step == STEPS - 1 and loop.finite


def test_an_update_that_breaks_the_weights_is_raised_at_the_end_of_its_step():
    loop = Loop("raise", broken=-1)
    loop.optimizer.param_groups[0]["lr"] = math.inf
    with pytest.raises(tv.FindingError, match="nonfinite-gradient"):
        loop.run()
    assert loop.step <= 1 and loop.phase == "step"


def test_stop_only_says_so():
    loop = Loop("stop").run(until=tv.should_stop)
    assert (loop.step, loop.phase) == (BROKEN, "log")


def test_a_function_gets_each_finding_once_in_the_thread_that_trains():
    seen = []
    loop = Loop(lambda finding: seen.append((finding, loop.phase)))
    loop.run()
    ((finding, phase),) = [entry for entry in seen if entry[0].rule == "nonfinite-activation"]
    assert isinstance(finding, tv.Finding) and phase == "step"
    assert len({entry[0].key for entry in seen}) == len(seen)


@pytest.mark.parametrize("end", [tv.detach, tv.finish])
@pytest.mark.parametrize("at", ["begin", "end"])
def test_a_function_may_end_the_watch_in_the_midst_of_a_step(end, at):
    before = len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)
    others = []
    elsewhere = [
        register_optimizer_step_pre_hook(lambda *_: others.append("begin")),
        register_optimizer_step_post_hook(lambda *_: others.append("end")),
    ]
    seen = []

    def react(finding):
        seen.append(finding.rule)
        end()

    loop = Loop(react, broken=BROKEN if at == "begin" else -1)
    if at == "end":
        loop.optimizer.param_groups[0]["lr"] = math.inf
    loop.run()
    assert (loop.step, len(seen)) == (STEPS - 1, 1)
    assert others == ["begin", "end"] * STEPS
    for handle in elsewhere:
        handle.remove()
    Loop()  # whatever was left is taken off with the next ones
    tv.finish()
    assert (len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)) == before


def test_what_the_function_raises_is_raised():
    def refuse(finding):
        raise KeyError(finding.rule)

    with pytest.raises(KeyError, match="nonfinite-activation"):
        Loop(refuse).run()


def test_watch_takes_it_too():
    loop = Loop()
    tv.watch(loop.model, loop.optimizer, on_finding="raise")
    with pytest.raises(tv.FindingError):
        loop.run()


@pytest.mark.parametrize(
    ("wrong", "error"), [("halt", ValueError), (3, TypeError), (["stop"], TypeError)]
)
def test_anything_else_is_refused_at_once(wrong, error):
    with pytest.raises(error, match="on_finding"):
        tv.init(on_finding=wrong)
    with pytest.raises(error, match="on_finding"):
        tv.watch(nn.Linear(1, 1), on_finding=wrong)


def test_detach_takes_its_hooks_off_and_the_default_puts_none_on():
    def hooks():
        return len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)

    before = hooks()
    Loop()
    plain = hooks()
    tv.detach()
    Loop("stop")
    assert hooks() == (plain[0] + 1, plain[1] + 1)
    tv.detach()
    assert hooks() == before


def test_a_disabled_run_reacts_to_nothing():
    tv.init(mode="disabled", on_finding="raise")
    assert tv.should_stop() is False
