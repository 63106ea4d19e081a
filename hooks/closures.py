"""Closures that optimizers evaluate inside of their step."""

from trainvitals.hooks.aftermath import Aftermath
from trainvitals.hooks.guard import Guard


class Closures:
    """Tells the guard of each evaluation: an optimizer may move the weights between one and the next."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._aftermath: Aftermath | None = None
        """What is kept of the optimizer that evaluates a closure at the moment."""
        self._evaluations = 0
        """How often it did so far."""
        self.repeated = False
        """Whether the last one was evaluated several times in a step, as by LBFGS."""

    def begin(self, aftermath: Aftermath | None) -> None:
        """An optimizer is about to step with a closure."""
        self._aftermath, self._evaluations = aftermath, 0

    def evaluated(self, step: int) -> None:
        """A backward pass is over, maybe that of a closure."""
        if self._aftermath is not None:
            self._evaluations += 1
            self._guard.evaluated(self._aftermath, step)

    def end(self) -> None:
        """The optimizer has stepped, with a closure or without."""
        if self._aftermath is not None:
            self._aftermath, self.repeated = None, self._evaluations > 1
