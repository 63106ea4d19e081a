"""Losses on an accelerator: looked at some steps later, in one copy, so that no step waits for its device."""

import math
from collections import deque

from torch import Tensor

from trainvitals.hooks.readout import Readout

AT_ONCE = 16
"""Losses that are copied together."""


class LateLosses:
    """Finds the first step whose loss was not finite."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._losses: list[Tensor] = []
        self._under_way: deque[tuple[list[int], Readout]] = deque()

    def see(self, step: int, loss: Tensor) -> None:
        """Backward is about to begin from this loss (one element, on a device)."""
        self._steps.append(step)
        self._losses.append(loss.detach())
        if len(self._losses) >= AT_ONCE:
            self._under_way.append((self._steps, Readout(self._losses)))
            self._steps, self._losses = [], []

    def bad_steps(self, wait: bool = False) -> list[int]:
        """Steps with a non-finite loss among those that have arrived by now; with `wait`, among all."""
        if wait and self._losses:
            self._under_way.append((self._steps, Readout(self._losses)))
            self._steps, self._losses = [], []
        found: list[int] = []
        while self._under_way and (wait or self._under_way[0][1].ready()):
            steps, readout = self._under_way.popleft()
            values = readout.values()
            found += [
                step
                for step, value in zip(steps, values, strict=True)
                if not math.isfinite(value[0])
            ]
        return found
