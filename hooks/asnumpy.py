"""The elements of a tensor for numpy to read, where they lie.

`Tensor.numpy()` would do but for one thing: it marks the tensor's memory as one that can't be resized, for good, and a
training that resizes a buffer of its own would fail there. What is lent by DLPack stays as it was.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

_HOST = (1, 0)
"""The CPU in DLPack's numbers."""


class _Lent:
    """What numpy asks for; less work than `Tensor.__dlpack__`, which settles for whom and where."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **wanted: Any) -> Any:
        return to_dlpack(self._tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _HOST


def as_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """A dense tensor on the CPU as numpy sees it: its own memory, to be read only. Whoever keeps that has to look
    whether the tensor still lies there.

    Raises RuntimeError or BufferError for types that numpy lacks, as bfloat16, and for tensors without memory.
    """
    if tensor.is_neg() or tensor.is_conj():  # which DLPack doesn't know of
        tensor = tensor.resolve_conj().resolve_neg()
    return np.from_dlpack(_Lent(tensor))
