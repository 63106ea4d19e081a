"""The small parameters of one optimizer: copied as a whole, and measured together."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks.draft import Draft
from trainvitals.hooks.gathered import COLUMN
from trainvitals.hooks.gradients import all_finite
from trainvitals.hooks.memory import Floats, Memory
from trainvitals.hooks.packed import SMALL, Packed, is_single
from trainvitals.hooks.plain import Array
from trainvitals.hooks.readout import Number
from trainvitals.hooks.stats import Moments, share_unchanged


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
        self._count = sum(self._sizes)
        self._room: Floats = np.empty(2 * self._count, np.float32)
        """The weights before the step, in the end how they changed, then the gradients: fresh memory at each sample
        would cost more."""
        self._before = Packed(self._room[: self._count], self._sizes).parts
        self._stepped: list[int] = []
        """Those with a gradient, by their place here."""
        self._factor = 1.0
        self._weights: list[Moments[float]] | None = None
        """Of the weights before the step, once they are measured."""
        self.norm = 0.0
        """Over all gradients that were measured."""
        self._slotted: list[int] = []
        """Those for whose gradients there are `_slots`."""
        self._slots: list[Tensor] = []
        self._slices: dict[int, Array] = {}

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
        np.concatenate(self._views, out=self._room[: self._count])
        self._stepped, self._weights = [], None

    def take_gradients(self, factor: float) -> bool:
        """Copy the gradients, of which `factor` times as much counts, and whether that could be done. Those without one
        have not stepped."""
        gradients = [tensor.grad for tensor in self.tensors]
        given = [gradient for gradient in gradients if gradient is not None]
        if not all(type(gradient) is Tensor and not gradient.requires_grad for gradient in given):
            return False
        stepped = [i for i, gradient in enumerate(gradients) if gradient is not None]
        if stepped != self._slotted:
            self._make_slots(stepped)
        try:
            torch._foreach_copy_(self._slots, given)
        except RuntimeError:  # sparse ones
            return False
        self._stepped, self._factor = stepped, factor
        return True

    @property
    def gradients(self) -> dict[int, Array]:
        """The elements of those that were taken, in order, by the ids of their parameters."""
        return self._slices if self._stepped else {}

    def _make_slots(self, stepped: list[int]) -> None:
        """Find the places of the gradients of these, end to end."""
        behind = torch.from_numpy(self._room[self._count :])
        sizes = [self._sizes[i] for i in stepped]
        slots = torch.split(behind[: sum(sizes)], sizes)
        parts = list(zip(stepped, slots, strict=True))
        self._slots = [part.view(self.tensors[i].shape) for i, part in parts]
        self._slices = {id(self.tensors[i]): part.numpy() for i, part in parts}
        self._slotted = stepped

    def finish(
        self, draft: Draft, histograms: bool, adam: Sequence[tuple[Number, Number]]
    ) -> list[Tensor]:
        """The optimizer has stepped: measure all; returns the weights that it left non-finite.

        `adam`: update factor and share ruled by eps of each.
        """
        if self._weights is None:  # gradients of another kind
            self.measure(draft, histograms)
        weights = self._weights or []
        if not self.is_current:  # given other data in the meantime
            return []
        changes = self._measure_update(draft, weights, adam)
        found = zip(self.tensors, changes, strict=True)
        suspects = [tensor for tensor, change in found if not math.isfinite(change)]
        return [tensor for tensor in suspects if not all_finite([tensor.detach()])]

    def measure(self, draft: Draft, histograms: bool) -> None:
        """Fill the rows of weights and gradients: best when both were just copied, as they are in the caches."""
        count, rows = len(self._rows), [self._rows[i] for i in self._stepped]
        sizes = self._sizes + tuple(self._sizes[i] for i in self._stepped)
        values = self._room[: sum(sizes)]
        if self._factor != 1.0:
            with np.errstate(all="ignore"):
                values[self._count :] *= np.float32(self._factor)
        packed = Packed(values, sizes)
        moments = packed.moments()
        kept = [(m.rms, m.std, m.absmax, m.nonfinite) for m in moments]
        draft.put_all("parameter", COLUMN["weight_rms"], self._rows, kept[:count])
        draft.put_all("parameter", COLUMN["grad_rms"], rows, kept[count:])
        if histograms:
            counts = packed.histograms()
            draft.count_all("weight", self._rows, counts[:count])
            if rows:
                draft.count_all("gradient", rows, counts[count:])
        self._weights = moments[:count]
        squares = (m.rms * m.rms * size for m, size in zip(moments, sizes, strict=True))
        self.norm = math.sqrt(sum(islice(squares, count, None)))

    def _measure_update(
        self, draft: Draft, weights: list[Moments[float]], adam: Sequence[Any]
    ) -> list[float]:
        """`weights`: moments from before the step. Returns the sum of squares of each change."""
        kept = {  # infinity less infinity is no 0
            i: share_unchanged(self._views[i], self._before[i])
            for i, each in enumerate(weights)
            if each.nonfinite
        }
        with np.errstate(all="ignore"):
            for view, before in zip(self._views, self._before, strict=True):
                np.subtract(view, before, out=before)
        changes, still = Packed(self._room[: self._count], self._sizes).as_changes()
        values: list[Any] = []
        for i, (change, each) in enumerate(zip(changes, weights, strict=True)):
            size = each.rms * each.rms * self._sizes[i]
            moved = self.tensors[i].grad is not None and size and change == change
            ratio = math.sqrt(change / size) if moved else math.nan
            same = kept.get(i, still[i])
            values.append((ratio, 1.0 if same == 1.0 else 0.0, same, *adam[i]))
        draft.put_all("parameter", COLUMN["update_ratio"], self._rows, values)
        return changes
