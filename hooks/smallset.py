"""The small parameters of one optimizer: copied as a whole, and measured together."""

import math
from collections.abc import Sequence
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
from trainvitals.hooks.stats import Moments, share_unchanged, sum_of_squares


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
        self._ends = self._count
        """Where the gradients end."""
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
        self._stepped, self._ends = [], self._count

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
        self._stepped = stepped
        self._ends = self._count + sum(self._sizes[i] for i in stepped)
        if factor != 1.0:
            with np.errstate(all="ignore"):
                np.multiply(self._taken, np.float32(factor), out=self._taken)
        return True

    @property
    def _taken(self) -> Floats:
        """All gradients that were taken, end to end."""
        return self._room[self._count : self._ends]

    @property
    def norm(self) -> float:
        """Over these."""
        return math.sqrt(sum_of_squares(self._taken))

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

    def measure(self, draft: Draft, histograms: bool) -> list[Moments[float]]:
        """Fill the rows of weights and gradients; returns the moments of the weights.

        Best in one go with all else that is measured: each function that the training has driven out of the caches
        takes longer to fetch than to run.
        """
        count, rows = len(self._rows), [self._rows[i] for i in self._stepped]
        packed = Packed(
            self._room[: self._ends], self._sizes + tuple(self._sizes[i] for i in self._stepped)
        )
        moments = packed.moments()
        kept = [(m.rms, m.std, m.absmax, m.nonfinite) for m in moments]
        draft.put_all("parameter", COLUMN["weight_rms"], self._rows, kept[:count])
        draft.put_all("parameter", COLUMN["grad_rms"], rows, kept[count:])
        if histograms:
            counts = packed.histograms()
            draft.count_all("weight", self._rows, counts[:count])
            if rows:
                draft.count_all("gradient", rows, counts[count:])
        return moments[:count]

    def finish(
        self, draft: Draft, histograms: bool, adam: Sequence[tuple[Number, Number]]
    ) -> list[Tensor]:
        """The optimizer has stepped: measure all; returns the weights that it left non-finite.

        `adam`: update factor and share ruled by eps of each.
        """
        weights = self.measure(draft, histograms)
        if not self.is_current:  # given other data in the meantime
            return []
        changes = self._measure_update(draft, weights, adam)
        found = zip(self.tensors, changes, strict=True)
        suspects = [tensor for tensor, change in found if not math.isfinite(change)]
        return [tensor for tensor in suspects if not all_finite([tensor.detach()])]

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
