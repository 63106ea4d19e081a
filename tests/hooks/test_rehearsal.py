"""The watch's own work, tried out at steps that are looked at: without a trace in what the training is watched by."""

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from trainvitals.hooks.accounts import Accounts, QuietCost
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.rehearsal import Rehearsal

UNKNOWN = QuietCost(1.0, 2.0, 0.0)


class Stage:
    def __init__(self, *kinds: type[Optimizer]) -> None:
        self.model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        self.registry = Registry(outputs=True, parameters=True)
        self.registry.add(self.model, (), ())
        self.optimizers = Optimizers(self.registry)
        for kind in kinds:
            self.optimizers.add(kind(self.model.parameters(), lr=0.1))  # type: ignore[call-arg]
        self.optimizers.renew()
        self.accounts = Accounts(lambda: 0.0)
        self.accounts.quiet_cost = UNKNOWN
        self.rehearsal = Rehearsal(self.registry, self.optimizers, self.accounts)

    def look(self, times: int) -> None:
        for _ in range(times):
            self.rehearsal.before_step()
            self.rehearsal.after_step()


def test_what_is_found_takes_the_place_of_what_was_tried_out_before() -> None:
    for kind in (SGD, Adam):
        stage = Stage(kind)
        stage.look(10)
        cost = stage.accounts.quiet_cost
        assert cost is not None and cost.rest > 0
        assert (cost.call, cost.saved) == (UNKNOWN.call, UNKNOWN.saved)


def test_a_single_look_is_not_believed() -> None:
    stage = Stage(SGD)
    stage.look(1)
    assert stage.accounts.quiet_cost == UNKNOWN


def test_what_is_kept_of_the_last_step_stays_as_it_is() -> None:
    stage = Stage(SGD)
    stage.model(torch.randn(2, 3)).sum().backward()
    aftermath = stage.optimizers.primary_aftermath()
    assert aftermath is not None
    aftermath.keep(7)
    kept = aftermath.gradients
    stage.look(3)
    assert aftermath.gradients is kept and aftermath.step == 7


def test_nothing_of_the_training_is_held() -> None:
    stage = Stage(SGD)
    stage.model(torch.randn(2, 3)).sum().backward()
    stage.look(3)
    quiet = stage.rehearsal._quiet
    assert not quiet.calls and not quiet.kept and not quiet.roots and quiet.pending == -1
    assert quiet.optimizer is None and quiet.aftermath is None
    assert quiet.batch in (None, ((), {}))


def test_several_optimizers_are_left_to_what_was_tried_out_before() -> None:
    stage = Stage(SGD, Adam)
    stage.look(10)
    assert stage.accounts.quiet_cost == UNKNOWN
