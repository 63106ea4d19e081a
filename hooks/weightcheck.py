"""Whether an optimizer step left the weights finite: looked at after every step, for microseconds."""

import warnings

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks.accounts import seconds_of
from trainvitals.hooks.registry import Parameter, local

WHOLE_UP_TO = 1 << 14
"""Elements of all weights together up to which every single one is looked at."""
_TOGETHER_FROM = 6
"""Arrays from which one concatenation is faster than an inner product for each."""
_BESIDE_BIAS = 8
"""Elements of a weight that are looked at where its layer has a bias."""
_EXPONENT = {torch.bfloat16: 0x7F80, torch.float16: 0x7C00}
"""Bits that are all set in the infinite and NaN values of a type that NumPy doesn't calculate with."""
_READABLE = (torch.float32, torch.float64, *_EXPONENT)
_AT_ONCE = 1 << 13
"""Elements of one inner product: for more, BLAS would wake threads that the training needs."""


# Infinity times zero is what is looked for here; NumPy need not tell the user of it.
warnings.filterwarnings("ignore", "invalid value", RuntimeWarning, __name__)


class WeightCheck:
    """Looks at a few weights of every parameter, or this rank's shard of it, that one optimizer moves on the CPU.

    A non-finite gradient of a layer's output makes the whole row of that unit's weights non-finite, so the
    bias, or one column where there is none, shows it; of a weight beside a bias a few are enough for what
    spoils it as a whole. A small model is looked at whole. The inner product with zeros is zero exactly when
    everything is finite.
    """

    def __init__(self, parameters: list[Parameter]) -> None:
        self._parameters = parameters
        self._choose(
            [p for p in parameters if p.tensor.requires_grad and _readable(local(p.tensor))]
        )
        self.cost = seconds_of(self.looks_fine)
        """Seconds that one look takes."""

    def _choose(self, movable: list[Parameter]) -> None:
        whole = sum(local(p.tensor).numel() for p in movable) <= WHOLE_UP_TO
        with_bias = {p.layer for p in movable if p.tensor.dim() == 1}
        self._watched: list[tuple[Parameter, int]] = []
        self._arrays: list[np.ndarray] = []
        self._halves: list[tuple[np.ndarray, int]] = []
        self._partly: list[Tensor] = []
        self._versions: list[int] = []
        for parameter in movable:
            tensor = local(parameter.tensor)
            if tensor.dim() < 2 or whole:
                view = tensor.detach().reshape(-1)
            else:
                self._partly.append(tensor)
                view = tensor.detach().flatten(1)[:, 0]
                if parameter.layer in with_bias:
                    view = view[:_BESIDE_BIAS]
            self._watched.append((parameter, tensor.data_ptr()))
            if tensor.dtype in _EXPONENT:
                self._halves.append((view.view(torch.int16).numpy(), _EXPONENT[tensor.dtype]))
            else:
                self._arrays.append(view.numpy())
        self._joined: np.ndarray | None = None
        if len(self._arrays) >= _TOGETHER_FROM and len({a.dtype for a in self._arrays}) == 1:
            self._joined = np.concatenate(self._arrays)
        joined = self._arrays if self._joined is None else [self._joined]
        self._parts = [
            (array[begin : begin + _AT_ONCE], np.zeros_like(array[begin : begin + _AT_ONCE]))
            for array in joined
            for begin in range(0, array.size, _AT_ONCE)
        ]

    def accept(self) -> None:
        """What is non-finite now was so before the step: leave it out from now on."""
        self._choose(
            [p for p, _ in self._watched if bool(torch.isfinite(local(p.tensor).detach()).all())]
        )

    def is_current(self) -> bool:
        """Whether the weights are still where they were: `model.to()` and the like move them."""
        return all(
            local(parameter.tensor).data_ptr() == address and parameter.tensor.requires_grad
            for parameter, address in self._watched
        )

    def looks_fine(self) -> bool:
        """Whether nothing is wrong after a step, as far as is seen."""
        self._versions = [tensor._version for tensor in self._partly]
        if self._joined is not None:
            np.concatenate(self._arrays, out=self._joined)
        try:
            for part, zeros in self._parts:
                if part.dot(zeros) != 0.0:
                    return False
        except RuntimeWarning:  # turned into an error by the user
            return False
        return not any(((bits & ones) == ones).any() for bits, ones in self._halves)

    def was_left_so(self, tensor: Tensor) -> bool:
        """Whether a parameter of which not all is looked at has not been written to since the last step."""
        return any(
            local(tensor) is partly and tensor._version == version
            for partly, version in zip(self._partly, self._versions, strict=False)
        )

    def spoiled(self) -> list[Parameter]:
        """The parameters with non-finite elements that the last step has moved, all elements looked at."""
        return [
            parameter
            for parameter in self._parameters
            if parameter.tensor.grad is not None
            and _readable(local(parameter.tensor))
            and not bool(torch.isfinite(local(parameter.tensor).detach()).all())
        ]


def _readable(tensor: Tensor) -> bool:
    """Whether NumPy can look at the tensor where it lies."""
    return (
        type(tensor.data) is Tensor
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.dtype in _READABLE
        and tensor.numel() > 0
    )
