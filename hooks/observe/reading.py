"""Numbers asked of tensors while a step runs, and read together when all of them are on the host."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.wire.observed import Observed

Values: TypeAlias = Sequence[Sequence[float]]
"""The elements of every tensor that was asked for, by its place."""


class Reading:
    """What one look has asked for, and how its `Observed` is made of that."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._parts: list[Callable[[Values], dict[str, object]]] = []
        self._values: Values | None = None

    def ask(self, tensor: Tensor) -> int:
        """Read these few elements later; the place of their values."""
        self.tensors.append(tensor.detach().reshape(-1).clone())
        return len(self.tensors) - 1

    def then(self, part: Callable[[Values], dict[str, object]]) -> None:
        """Some fields of the `Observed`, made when the values are here."""
        self._parts.append(part)

    @property
    def on_host(self) -> bool:
        """Whether nothing has to be waited for."""
        return all(tensor.is_cpu for tensor in self.tensors)

    def arrived(self, values: Values) -> None:
        """The elements of every tensor, brought here."""
        self._values = values

    def values(self) -> Values:
        """Of every tensor; those that did not arrive are read where they are."""
        if self._values is not None:
            return self._values
        return [_listed(tensor) for tensor in self.tensors]

    def finish(self) -> Observed | None:
        """What was seen; None if nothing was."""
        values = self.values()
        fields: dict[str, object] = {}
        for part in self._parts:
            fields.update(part(values))
        return Observed(**fields) if fields else None  # type: ignore[arg-type]


def _listed(tensor: Tensor) -> list[float]:
    if tensor.dtype in (torch.float32, torch.int64, torch.float64) and tensor.is_cpu:
        numbers: list[float] = as_numpy(tensor).tolist()
        return numbers
    return as_numpy(tensor.cpu().to(torch.float64)).tolist()  # type: ignore[no-any-return]


def first(values: Values, place: int | None) -> float | None:
    """The number at a place; None where nothing was asked."""
    return None if place is None else float(values[place][0])
