"""What the watch of a quiet step takes: learnt once, as measuring it in the step would cost as much."""

import sys

import torch

from trainvitals.hooks.accounts import QuietCost, seconds_of
from trainvitals.hooks.guard import Guard
from trainvitals.hooks.interception import Interception
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.quiet import Quiet, watched_backward, watched_step
from trainvitals.hooks.registry import Registry


def quiet_cost(interception: Interception, registry: Registry, optimizers: Optimizers) -> QuietCost:
    """Tries everything out on a state of its own; the interception is attached and not in use."""
    quiet = Quiet()
    guard = Guard(registry, quiet, lambda step, found: None)
    backward = watched_backward(
        lambda *tensors: None, quiet, guard.let_go, lambda *tensors: False, lambda: None
    )
    after_step = watched_step(quiet, lambda optimizer, args, kwargs: None)
    loss = torch.zeros(())
    guard.resize()
    quiet.begin(optimizers.primary_aftermath(), sys.maxsize)
    others = [a for a in optimizers.aftermaths.values() if a.optimizer is not quiet.optimizer]
    root = next(iter(registry.roots), None)

    def step() -> None:
        if root is not None:
            quiet.calls.append((root, (), {}, loss))
        backward(loss)
        if quiet.optimizer is not None:
            after_step(quiet.optimizer, (), {})
        for aftermath in others:
            aftermath.keep(-1)
            quiet.kept.append(aftermath)

    return QuietCost(*interception.calibrate(), seconds_of(step))
