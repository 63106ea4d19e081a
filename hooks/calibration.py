"""What the watch of a quiet step takes: learnt once, as measuring it in the step would cost as much."""

from typing import NamedTuple

import torch

from trainvitals.hooks.accounts import seconds_of
from trainvitals.hooks.backwardwatch import BackwardWatch
from trainvitals.hooks.guard import Guard
from trainvitals.hooks.interception import Interception
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.pace import Pace
from trainvitals.hooks.parameterlook import ParameterLook
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.registry import Registry


class QuietCost(NamedTuple):
    """Seconds, with cold caches."""

    call: float
    """For each call of a module."""
    rest: float
    """Round backward and the optimizers' steps."""


def quiet_cost(
    interception: Interception,
    registry: Registry,
    optimizers: Optimizers,
    parameters: ParameterLook,
    problems: Problems,
) -> QuietCost:
    """Tries everything out on a guard of its own; the interception is attached and not in use."""
    guard = Guard(registry, lambda step, found: None)
    probe = BackwardWatch(registry, guard, Pace(), parameters, problems, lambda: 0, lambda: None)
    loss = torch.zeros(())
    aftermaths = list(optimizers.aftermaths.values())

    def step() -> None:
        probe.before(loss)
        for aftermath in aftermaths:
            aftermath.keep(-1)
            guard.kept.append(aftermath)

    cost = QuietCost(interception.calibrate(), seconds_of(step))
    guard.let_go()
    return cost
