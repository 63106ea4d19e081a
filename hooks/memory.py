"""What is kept from one sample to the next so that taking it is cheap: views of weights and optimizer states."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import readout
from trainvitals.hooks.plain import Array, plain, stride, values

Floats: TypeAlias = npt.NDArray[np.float32]

SAMPLE = 1 << 10
"""Elements of a matrix that the optimizer keeps of which something is judged, at most."""
_RUN = 4
"""Neighbours among them: one alone costs as much to fetch."""


class Memory:
    """Views of weights and optimizer states, which stay where they are."""

    def __init__(self) -> None:
        self._views: dict[int, tuple[int, int, Array]] = {}
        self._samples: dict[int, tuple[Array, Array]] = {}

    def view(self, tensor: Tensor) -> Array | None:
        """The elements of a dense contiguous CPU tensor that lives as long as its model; None of any other."""
        known = self._views.get(id(tensor)) if readout.on_host(tensor) else None
        if known is not None and known[0] == tensor.data_ptr() and known[1] == tensor.numel():
            return known[2]
        if not readout.on_host(tensor) or tensor.dtype not in (torch.float32, torch.float64):
            return None
        dense = plain(tensor) if tensor.data_ptr() else None  # its memory may be given away
        if dense is None or dense.data_ptr() != tensor.data_ptr() or not dense.is_contiguous():
            return None
        found = values(dense)
        if found is not None:
            self._views[id(tensor)] = (tensor.data_ptr(), tensor.numel(), found)
        return found

    def sample(self, tensor: Tensor) -> Array | None:
        """At most `SAMPLE` elements of what `view` gives: runs of neighbours that begin at evenly spaced places, so
        that every row and column is met. Shape `(runs, neighbours)`."""
        view = self.view(tensor)
        if view is None:
            return None
        known = self._samples.get(id(tensor))
        if known is None or known[0] is not view:
            known = self._samples[id(tensor)] = (view, _runs(tensor, view))
        return known[1]


def _runs(tensor: Tensor, values: Array) -> Array:
    if len(values) <= SAMPLE:
        return values.reshape(1, -1)
    step = stride(tensor, SAMPLE // _RUN)
    count = len(values) // step
    return values[: count * step].reshape(count, step)[:, :_RUN]


def alike(sample: Array, values: Array) -> Array:
    """Of the elements of another tensor of that shape, `values`, those at the places of a `Memory.sample`."""
    count, width = sample.shape
    step = sample.strides[0] // sample.itemsize
    return values[: count * step].reshape(count, step)[:, :width]
