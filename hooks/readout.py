"""Numbers that may still be on a device: brought over in one copy, read when it has arrived."""

from typing import TypeAlias

import torch
from torch import Tensor

from trainvitals.hooks.asnumpy import as_numpy

Number: TypeAlias = float | Tensor
"""A Python number, or a tensor of one element on a device other than the CPU."""


def on_host(tensor: Tensor) -> bool:
    """Whether the values of `tensor` can be read without waiting for a device."""
    return tensor.is_cpu


def number(tensor: Tensor) -> Number:
    """The value of a one-element tensor: at once on the CPU, later elsewhere. Never waits for a device.

    On the CPU it is read from memory through numpy; torch's `item()` would count as a synchronisation.
    """
    if not on_host(tensor):
        return tensor.detach()
    try:
        value: float = as_numpy(tensor.detach()).item()
    except (RuntimeError, BufferError):  # a type that numpy lacks, a subclass without memory
        value = tensor.item()
    return value


class Readout:
    """A copy of tensors to the host that is under way.

    Accelerators get one concatenated float32 copy each into pinned memory and an event; waiting for it is
    left to whoever asks for `values` before `ready`.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        """`tensors`: any shapes, flattened in order; counts stay exact up to 2^24."""
        self._sizes = [tensor.numel() for tensor in tensors]
        self._order: list[int] = []
        self._parts: list[tuple[Tensor, Tensor, torch.cuda.Event | None]] = []
        for device in dict.fromkeys(tensor.device for tensor in tensors):
            chosen = [index for index, tensor in enumerate(tensors) if tensor.device == device]
            self._order.extend(chosen)
            flat = torch.cat([tensors[i].detach().reshape(-1).to(torch.float32) for i in chosen])
            self._parts.append(_copy(flat))

    def ready(self) -> bool:
        """Whether `values` returns without waiting."""
        return all(
            event is None or event.query()  # type: ignore[no-untyped-call]
            for _, _, event in self._parts
        )

    def values(self) -> list[list[float]]:
        """The elements of each tensor, in the order given."""
        result: list[list[float]] = [[] for _ in self._sizes]
        order = iter(self._order)
        for host, _, event in self._parts:
            if event is not None:
                event.synchronize()
            elements = as_numpy(host).tolist()
            begin = 0
            while begin < len(elements):
                index = next(order)
                result[index] = elements[begin : begin + self._sizes[index]]
                begin += self._sizes[index]
        return result


def _copy(flat: Tensor) -> tuple[Tensor, Tensor, torch.cuda.Event | None]:
    """Host tensor, device tensor (kept until the copy has arrived) and the event behind the copy."""
    if flat.device.type != "cuda":
        return flat.cpu(), flat, None
    host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
    host.copy_(flat, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(flat.device))
    return host, flat, event
