"""What the watch of a quiet step takes, tried out before the first one.

Of a training of one optimizer on the CPU it is `Rehearsal` that tells what is done round backward and the optimizer's
step, as soon as there are looks: it finds that two to three times as dear.
"""

import sys
from collections import deque
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from trainvitals.hooks.accounts import QuietCost
from trainvitals.hooks.call import Call
from trainvitals.hooks.guard import Guard
from trainvitals.hooks.interception import Interception, ignore
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.quiet import Quiet, watched_backward, watched_step
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.slim import SlimModules

_ROUNDS = 21
_SWEEP = 1 << 19
"""Elements that are read and written to empty the caches of a core: 2 MiB."""
_PAIRS = 4
"""Linear layers of the row whose cost is learnt, each with a ReLU behind it."""
_WIDTH = 256
"""Their inputs and outputs: weights of a quarter of a MiB."""
_BATCH = 64


def quiet_cost(interception: Interception, registry: Registry, optimizers: Optimizers) -> QuietCost:
    """Tries everything out on a state of its own; the interception is attached and not in use."""
    quiet = Quiet()
    guard = Guard(registry, quiet, lambda step, found: None)
    backward = watched_backward(
        lambda *tensors: None,
        quiet,
        lambda loss: guard.let_go(),
        lambda *tensors: False,
        lambda: None,
    )
    after_step = watched_step(quiet, lambda optimizer, args, kwargs: None)
    loss = torch.zeros(())
    guard.resize()
    quiet.usual_pass = 1
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

    clock = _ColdClock()
    row = nn.Sequential(*(layer() for _ in range(_PAIRS) for layer in (_Linear, nn.ReLU)))
    batch = torch.ones(_BATCH, _WIDTH, dtype=torch.float32, device="cpu")
    return QuietCost(
        call=max(_noting(interception, clock, nn.Identity(), batch, {}), 0.0),
        saved=max(-_noting(interception, clock, row, batch, {row: tuple(row)}), 0.0) / len(row),
        rest=median(clock.seconds(step) for _ in range(_ROUNDS)),
    )


class _ColdClock:
    """Times work of a few microseconds as a training would meet it, which has filled the caches meanwhile.

    In a loop of its own the same work is three to five times as quick, which is not what it costs a step.
    """

    def __init__(self) -> None:
        self._sweep = np.ones(_SWEEP, np.float32)

    def seconds(self, work: Callable[[], object]) -> float:
        self._sweep += 1.0
        begin = perf_counter()
        work()
        return perf_counter() - begin


class _Linear(nn.Module):
    """A linear layer that draws no random numbers, which are the training's.

    What a row saves is what leads from layer to layer, which is the dearer, the more of other code has run meanwhile.
    Layers that only sweep the caches tell three fifths of what trainings save; these tell as much.
    """

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(_WIDTH, _WIDTH, dtype=torch.float32, device="cpu")
        self.weight = nn.Parameter(zeros)

    def forward(self, argument: Tensor) -> Tensor:
        return nn.functional.linear(argument, self.weight)


def _noting(
    interception: Interception,
    clock: _ColdClock,
    module: nn.Module,
    argument: Tensor,
    slim: SlimModules,
) -> float:
    """Seconds that noting it adds to a call of `module`; negative where a noted row is the quicker one.

    The median of differences, each of two calls in turn: what else runs on the machine slows both.
    """
    kept = deque[Call]()
    added = []
    with torch.enable_grad():
        for _ in range(_ROUNDS):
            interception.send_calls_to(kept.append, slim)
            noted = clock.seconds(lambda: module(argument))
            kept.clear()
            interception.send_calls_to(ignore)
            with interception.calls_left_alone():
                added.append(noted - clock.seconds(lambda: module(argument)))
    return median(added)
