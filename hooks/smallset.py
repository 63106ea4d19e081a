"""The small parameters of one optimizer: copied as a whole, and measured together."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks.draft import COLUMN, Draft
from trainvitals.hooks.gradients import all_finite, joined
from trainvitals.hooks.memory import Floats, Memory
from trainvitals.hooks.packed import SMALL, Packed, is_single
from trainvitals.hooks.plain import Array
from trainvitals.hooks.readout import Number
from trainvitals.hooks.stats import Moments

_SIZES = [Moments._fields.index(name) for name in ("rms", "std", "absmax", "nonfinite")]
_RMS = Moments._fields.index("rms")
_NONE: Floats = np.empty(0, np.float32)


def small_view(tensor: Tensor, memory: Memory) -> Array | None:
    """The elements of a parameter that belongs into a `SmallSet`; None of any other."""
    view = memory.view(tensor)
    return view if view is not None and len(view) <= SMALL and is_single(view) else None


class SmallSet:
    """Dense float32 parameters on the CPU; the same ones from sample to sample, as long as `is_current`."""

    def __init__(self, rows: list[int], tensors: list[Tensor], views: list[Array]) -> None:
        """`views`: the elements of the tensors, where they lie."""
        self._rows = rows
        self.tensors = tensors
        self._views = views
        self._places = self._where()
        self._sizes = tuple(map(len, views))
        self._before = _NONE
        self._stepped: list[int] = []
        """Those with a gradient, by their place here."""
        self._gradients = _NONE
        self._factor = 1.0

    @property
    def members(self) -> list[tuple[int, Tensor]]:
        """Rows and tensors."""
        return list(zip(self._rows, self.tensors, strict=True))

    def _where(self) -> list[tuple[int, int]]:
        return [(tensor.data_ptr(), tensor.numel()) for tensor in self.tensors]

    @property
    def is_current(self) -> bool:
        """Whether the parameters still lie where they lay."""
        return self._where() == self._places

    def take_weights(self) -> None:
        """Copy the weights, before the optimizer moves them."""
        self._before = np.concatenate(self._views)
        self._stepped, self._gradients = [], _NONE

    def take_gradients(self, factor: float) -> Tensor | None:
        """Copy the gradients, of which `factor` times as much counts: as one tensor, None where they do not fit into
        one. Those without one have not stepped."""
        gradients = [tensor.grad for tensor in self.tensors]
        given = [gradient for gradient in gradients if gradient is not None]
        copy = joined(given)
        if copy is None or type(copy) is not Tensor or copy.dtype is not torch.float32:
            return None
        if len(given) == 1:
            copy = copy.resolve_neg().clone()  # it was a view
        self._stepped = [i for i, gradient in enumerate(gradients) if gradient is not None]
        self._gradients = copy.numpy()
        self._factor = factor
        return copy

    def finish(
        self, draft: Draft, histograms: bool, adam: Sequence[tuple[Number, Number]]
    ) -> list[Tensor]:
        """The optimizer has stepped: measure all; returns the weights that it left non-finite.

        `adam`: update factor and share ruled by eps of each.
        """
        after, spoiled = None, []
        if self.is_current:  # not given other data in the meantime
            after = np.concatenate(self._views)
            with np.errstate(all="ignore"):
                if not math.isfinite(np.add.reduce(after)):
                    spoiled = [t for t in self.tensors if not all_finite([t.detach()])]
        self._measure(draft, histograms, after, adam)
        return spoiled

    def _measure(
        self, draft: Draft, histograms: bool, after: Floats | None, adam: Sequence[Any]
    ) -> None:
        """Fill the rows of weights, gradients and updates."""
        count, rows = len(self._rows), [self._rows[i] for i in self._stepped]
        gradients = self._gradients
        if self._factor != 1.0:
            with np.errstate(all="ignore"):
                gradients = gradients * np.float32(self._factor)
        sizes = tuple(self._sizes[i] for i in self._stepped)
        packed = Packed(np.concatenate([self._before, gradients]), self._sizes + sizes)
        moments = packed.moments()
        kept = moments[:, _SIZES].tolist()
        draft.put_all("parameter", COLUMN["weight_rms"], self._rows, kept[:count])
        draft.put_all("parameter", COLUMN["grad_rms"], rows, kept[count:])
        if histograms:
            counts = packed.histograms()
            draft.count_all("weight", self._rows, counts[:count])
            if rows:
                draft.count_all("gradient", rows, counts[count:])
        if after is not None:
            squares = (moments[:count, _RMS] ** 2 * self._sizes).tolist()
            self._measure_update(draft, after, squares, adam)

    def _measure_update(
        self, draft: Draft, after: Floats, squares: list[float], adam: Sequence[Any]
    ) -> None:
        """`squares`: sum of squares of each weight before the step."""
        changes, same = Packed(after, self._sizes).changes(self._before)
        values: list[Any] = []
        for index, (change, size) in enumerate(zip(changes, squares, strict=True)):
            moved = self.tensors[index].grad is not None and size and change == change
            ratio = math.sqrt(change / size) if moved else math.nan
            unchanged = 1.0 if same[index] == 1.0 else 0.0
            values.append((ratio, unchanged, same[index], *adam[index]))
        draft.put_all("parameter", COLUMN["update_ratio"], self._rows, values)
