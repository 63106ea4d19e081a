"""What the flat functions of a quiet step take, tried out at steps that are looked at."""

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

import torch

from trainvitals.hooks.accounts import Accounts
from trainvitals.hooks.aftermath import Aftermath
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.quiet import Quiet, watched_backward, watched_step
from trainvitals.hooks.registry import Registry

_FIRST = 16
"""Looks at which it is done every time; later at each `_SELDOM`th, as it takes as long as the watch of a step."""
_SELDOM = 4
_ENOUGH = 3
"""Looks from which on it is believed."""
_MEMORY = 31
_IN_ALL = 1.4
"""Times that what is tried out: a quiet step also has the way back from the backward pass, the hook before the
optimizer's step, torch's loops over hooks, and the training's data that ours takes the place of. By steps watched and
not in turn, 40 each: three runs of a small net took 13 to 14 us longer where 9 to 9.5 were found here."""


class Rehearsal:
    """Does the work of a quiet step on a state of its own, where the training has just done a part of its work.

    What this takes is the waits for what the training has driven out of the caches: code, objects of Python and torch,
    what the processor remembers of branches. A test beforehand cannot drive all of it out, and finds a third to a half.

    Only for the usual training: a single optimizer of torch's, and a model on the CPU.
    """

    def __init__(self, registry: Registry, optimizers: Optimizers, accounts: Accounts) -> None:
        self._registry = registry
        self._optimizers = optimizers
        self._accounts = accounts
        quiet = self._quiet = Quiet()
        quiet.usual_pass = 1
        self._loss = torch.zeros(())
        self._backward = watched_backward(
            _nothing, quiet, _nothing, lambda loss, retained: False, _nothing
        )
        self._step = watched_step(quiet, _nothing)
        self._known: deque[float] = deque(maxlen=_MEMORY)
        self._looks = 0
        self._before: float | None = None
        """Seconds of the first part in the step under way, if it was tried out there."""

    def before_step(self) -> None:
        """In a step that is looked at, after its backward pass."""
        self._looks += 1
        if self._looks > _FIRST and self._looks % _SELDOM:
            return
        aftermath = self._optimizers.primary_aftermath()
        alone = len(self._optimizers.known) == 1 and self._registry.on_cpu
        if alone and aftermath is not None and aftermath.is_simple:
            self._before = self.backward(aftermath)

    def after_step(self) -> None:
        """In the same step, after the optimizer's."""
        before, self._before = self._before, None
        aftermath = self._optimizers.primary_aftermath()
        if before is not None and aftermath is not None:
            self._known.append(before + self.step(aftermath))
            if len(self._known) >= _ENOUGH:
                self._accounts.know_rest(_IN_ALL * median(self._known))

    def backward(self, aftermath: Aftermath) -> float:
        """Seconds of what a quiet step does before its backward pass."""
        quiet = self._quiet
        with self._playing(aftermath):
            quiet.pending = 0
            quiet.roots = self._registry.roots
            for root in self._registry.roots:
                quiet.calls.append((root, (), {}, self._loss))
                break
            begin = perf_counter()
            self._backward(self._loss)
            return perf_counter() - begin

    def step(self, aftermath: Aftermath) -> float:
        """Seconds of what it does after the optimizer's step."""
        with self._playing(aftermath):
            begin = perf_counter()
            self._step(aftermath.optimizer, (), {})
            return perf_counter() - begin

    @contextmanager
    def _playing(self, aftermath: Aftermath) -> Iterator[None]:
        """As in a quiet step; afterwards all is as it was, and nothing of the training is held."""
        kept = aftermath.gradients
        self._quiet.begin(aftermath, sys.maxsize)
        try:
            yield
        finally:
            aftermath.gradients = kept
            self._quiet.end()


def _nothing(*given: Any) -> None:
    """In the place of what is not tried out."""
