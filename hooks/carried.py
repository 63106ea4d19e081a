"""Whether gradients of the step before are still there when new ones arrive."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from trainvitals.hooks.readout import Number, number

PROBES = 3


class CarriedGradients:
    """Looks at a few small parameters at each backward of one step.

    Accumulation starts from nothing at its first backward, so only a missing `zero_grad` makes every single
    backward meet a gradient that is there already.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        """Puts hooks on up to three of `parameters`, the smallest; `remove` takes them off."""
        trainable = [
            parameter
            for parameter in parameters
            if parameter.requires_grad and parameter.is_leaf and parameter.numel()
        ]
        self._seen: list[Number | Tensor] = []
        self._probes = sorted(trainable, key=Tensor.numel)[:PROBES]
        self._handles: list[RemovableHandle] = []
        for probe in self._probes:
            handle = probe.register_hook(self._look_at(probe))  # type: ignore[no-untyped-call]
            self._handles.append(handle)

    def _look_at(self, parameter: Tensor) -> Callable[[Tensor], None]:
        def hook(_: Tensor) -> None:
            gradient = parameter.grad  # the new gradient is added after this hook
            if gradient is None or gradient.is_sparse:
                self._seen.append(0.0)
            else:
                self._seen.append(number(gradient.detach().any().float()))

        return hook

    def remove(self) -> Number | None:
        """Take the hooks off; 1.0 or 0.0 as `tv/grad_carried` has it, None when no backward was seen."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._probes:
            if not parameter._backward_hooks:
                parameter._backward_hooks = None
        self._probes, self._handles = [], []
        if not self._seen:
            return None
        later = [value for value in self._seen if isinstance(value, Tensor)]
        if len(later) < len(self._seen):
            here = min(value for value in self._seen if not isinstance(value, Tensor))
            if not later or here == 0.0:
                return here
        return torch.stack(later).amin()
