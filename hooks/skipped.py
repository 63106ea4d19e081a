"""Forward passes that no backward pass follows: a training gives up a batch whose loss is not finite, and goes on."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules.loss import _Loss

from trainvitals.hooks.call import Call
from trainvitals.hooks.leaves import leaves, operations
from trainvitals.hooks.nonfinite import is_bad
from trainvitals.hooks.quiet import Quiet
from trainvitals.hooks.registry import Registry, every_tensor

_MANY = 3
"""Times as many calls as ever before a loss are those of passes that no loss follows."""


class Skipped:
    """Looks for such passes where there are more before a loss than ever before, and tells them by their outcomes.

    So a training that always runs its model several times for each loss, or without one, is looked at once.
    """

    def __init__(self, registry: Registry, quiet: Quiet) -> None:
        self._registry = registry
        self._quiet = quiet
        self._most_calls = self._most_outcomes = 0
        """That there were before a loss."""

    def resize(self) -> None:
        """Other models are watched."""
        self._most_calls = self._most_outcomes = self._quiet.usual_pass = 0

    @property
    def possible(self) -> bool:
        """Whether there are more calls than in any quiet step before."""
        return len(self._quiet.calls) > self._most_calls

    def before(self, loss: Any) -> list[Call] | None:
        """The calls up to the first bad outcome of a skipped pass; None without one.

        What this `loss` comes from, which is about to be differentiated, is no skipped pass.
        """
        quiet, calls = self._quiet, list(self._quiet.calls)
        outcomes = self._outcomes(calls)
        if len(outcomes) > self._most_outcomes:
            bad = [i for i in outcomes if self.is_bad(calls[i])]
            used = set(operations(loss)) if bad else set()
            for i in bad:
                if used.isdisjoint(_made_by(calls[i])):
                    return calls[: i + 1]
            self._most_outcomes = len(outcomes)
        if quiet.on:  # otherwise more calls are noted of each pass
            self._most_calls = max(self._most_calls, len(calls))
            if sum(call[0] in quiet.roots for call in calls) == 1:
                quiet.usual_pass = max(quiet.usual_pass, min(len(calls), quiet.one_pass))
        return None

    @property
    def many(self) -> bool:
        """Whether it seems that no loss follows any more."""
        return len(self._quiet.calls) > _MANY * max(self._most_calls, 1)

    def so_far(self) -> list[Call] | None:
        """What `before` gives, without a loss; None also where the last outcome is fine."""
        calls = list(self._quiet.calls)
        outcomes = self._outcomes(calls)
        if not outcomes or not self.is_bad(calls[outcomes[-1]]):
            return None
        return calls[: next(i for i in outcomes if self.is_bad(calls[i])) + 1]

    def _outcomes(self, calls: Sequence[Call]) -> list[int]:
        """Places of the calls of watched models, and of losses."""
        roots = self._quiet.roots
        return [i for i, (module, *_) in enumerate(calls) if module in roots or _is_loss(module)]

    def is_bad(self, call: Call) -> bool:
        """Whether the outcome is, and is of a watched model."""
        tensors = list(every_tensor(call[3]))
        if _is_loss(call[0]) and leaves(tensors).isdisjoint(self._registry.parameters):
            return False
        return is_bad(tensors)


def _is_loss(module: nn.Module) -> bool:
    return isinstance(module, _Loss)


def _made_by(call: Call) -> set[Any]:
    """The operations that its outcome comes from."""
    return {tensor.grad_fn for tensor in every_tensor(call[3])} - {None}
