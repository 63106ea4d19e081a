"""Which layers give or hold values that are not finite and mean it: they did so in steps whose loss was fine.

Masks of -infinity for attention or for actions that can't be taken, NaN for rows that are left out later, a smallest
value so far that begins at infinity. They tell nothing of a loss that is not finite.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from torch import nn

from trainvitals.hooks.plain import plain, values


class Harmless:
    """Names of such layers, as far as sampled steps showed, and of such buffers, as far as the first did."""

    def __init__(self) -> None:
        self._minus: set[str] = set()
        """Of those that gave -infinity and nothing worse."""
        self._worse: set[str] = set()
        """Of those that gave NaN or +infinity."""
        self.buffers: set[int] = set()
        """Tensors' ids: one that is put in the place of such a buffer is judged again."""

    def learn(self, layers: Mapping[str, bool]) -> None:
        """A step went well in which these gave something that is not finite: by name, whether NaN or +infinity."""
        for name, worse in layers.items():
            (self._worse if worse else self._minus).add(name)

    def learn_buffers(self, modules: Iterable[nn.Module]) -> None:
        """The first step went well: what their buffers on the CPU hold that is not finite is meant."""
        for buffer in (buffer for module in modules for buffer in module.buffers(recurse=False)):
            tensor = plain(buffer)
            known = None if tensor is None else values(tensor)
            if known is not None and not math.isfinite(known.sum(dtype=np.float64)):
                self.buffers.add(id(buffer))

    def gave_worse(self, name: str) -> bool:
        """Whether a layer gave NaN or +infinity."""
        return name in self._worse

    def gave(self, name: str) -> bool:
        """Whether a layer gave anything that is not finite."""
        return name in self._worse or name in self._minus
