"""What is kept of an optimizer's step until the next loss tells whether it went well."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainvitals.hooks.nonfinite import explain_gradients, explain_update, is_bad
from trainvitals.hooks.registry import Parameter, Registry, local
from trainvitals.hooks.stats import values_of
from trainvitals.hooks.wire.records import NonFinite

_LARGE_RATE = 1e30
_NEVER_NEGATIVE = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf", "acc_delta")
"""What optimizers take the root of."""


class Aftermath:
    """References to the gradients of one optimizer's last step.

    Looking at weights after every step would cost more than all the rest: the first look into NumPy or torch
    takes 10 us once the training's own code has filled the caches. A step that broke the weights shows in the
    next loss, and then there is time to look.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[Parameter]) -> None:
        """`parameters`: those that it holds; only the ones on the CPU count, where looking costs no wait."""
        self._optimizer = optimizer
        self._parameters = [
            p for p in parameters if p.tensor.is_cpu and p.tensor.is_floating_point()
        ]
        self._tensors = [parameter.tensor for parameter in self._parameters]
        self._is_torchs_own = type(optimizer).__module__.startswith("torch.optim")
        self._parts = [] if self._is_torchs_own else [local(tensor) for tensor in self._tensors]
        self._gradients: list[Tensor | None] = []
        self._versions: list[int] = []
        """How often the weights were written to, where the optimizer's own code can't tell what it may do."""
        self.step = -1
        """The step that it was."""

    def keep(self, step: int) -> None:
        """The optimizer has stepped."""
        self.step = step
        self._gradients = [tensor.grad for tensor in self._tensors]
        if self._parts:
            self._versions = [part._version for part in self._parts]

    def let_go(self) -> None:
        """The step went well."""
        self._gradients = []

    def explain(self, registry: Registry) -> NonFinite | None:
        """How the step left weights non-finite; None when it did not, or when someone else did since then."""
        if not self._gradients:
            return None
        kept = list(zip(self._parameters, self._gradients, strict=True))
        spoiled = [
            parameter
            for parameter, gradient in kept
            if gradient is not None and not _finite(local(parameter.tensor).detach())
        ]
        if not spoiled:
            return None
        bad = [(p, g) for p, g in kept if g is not None and not _finite(values_of(g))]
        if bad:
            return explain_gradients(bad, registry)
        if self._has_cause() or self._gradients_are_gone():
            return explain_update(spoiled)
        return None

    def _has_cause(self) -> bool:
        """Whether anything in the optimizer explains it: its memory, its rate, or code that is not torch's.

        Otherwise someone else has written to the weights since then.
        """
        if not self._is_torchs_own:
            return self._versions == [part._version for part in self._parts]
        rates = [value for group in self._optimizer.param_groups for value in group.values()]
        numbers = [float(rate) for rate in rates if isinstance(rate, int | float)]
        if any(not math.isfinite(number) or abs(number) > _LARGE_RATE for number in numbers):
            return True
        if any(group.get("eps") == 0 for group in self._optimizer.param_groups):
            return True
        states = [self._optimizer.state.get(tensor, {}) for tensor in self._tensors]
        return any(
            is_bad(value) or (key in _NEVER_NEGATIVE and bool((local(value) < 0).any()))
            for state in states
            for key, value in state.items()
        )

    def _gradients_are_gone(self) -> bool:
        """Whether `zero_grad(set_to_none=False)` has wiped them, so that they tell nothing."""
        return not any(g is not None and bool(values_of(g).any()) for g in self._gradients)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
