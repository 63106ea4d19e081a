"""The small parameters of one optimizer, measured together."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from torch import Tensor

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.gathered import COLUMN
from trainvitals.hooks.gradients import all_finite
from trainvitals.hooks.memory import Floats, Memory
from trainvitals.hooks.packed import SMALL, Packed, is_single
from trainvitals.hooks.plain import Array, is_ordinary
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
        self._room: Floats = np.empty(sum(self._sizes), np.float32)
        """The weights before the step, in the end how they changed: fresh memory at each sample would cost more."""
        self._before: list[Floats] = np.split(self._room, list(accumulate(self._sizes))[:-1])
        self._moments: list[Moments[float]] | None = None
        """Of the weights before the step, once they are known."""

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
        np.concatenate(self._views, out=self._room)
        self._moments = None

    def take_gradients(self, draft: Draft, histograms: bool, factor: float) -> float | None:
        """Measure the weights as they were copied, and the gradients where they lie, of which `factor` times as much
        counts; returns the norm over these, or None where they are not as usual and not measured. Those without one
        have not stepped.
        """
        stepped = [i for i, tensor in enumerate(self.tensors) if tensor.grad is not None]
        gradients = [tensor.grad for tensor in self.tensors if tensor.grad is not None]
        usual = all(is_ordinary(each) and not each.requires_grad for each in gradients)
        given = [as_numpy(each).reshape(-1) for each in gradients] if usual else []
        if factor != 1.0:
            with np.errstate(all="ignore"):
                given = [each * np.float32(factor) for each in given]
        moments = self._measure(draft, histograms, stepped if usual else [], given)
        squares = (m.rms * m.rms * len(each) for m, each in zip(moments, given, strict=True))
        return math.sqrt(sum(squares)) if usual else None

    def _measure(
        self, draft: Draft, histograms: bool, stepped: list[int], gradients: list[Floats]
    ) -> list[Moments[float]]:
        """Fill the rows of the weights, and of the gradients of those that stepped; returns the moments of these.

        Best in one go: each function that the training has driven out of the caches takes longer to fetch than to run.
        """
        count, rows = len(self._rows), [self._rows[i] for i in stepped]
        packed = Packed(self._before + gradients)
        moments = packed.moments()
        kept = [(m.rms, m.std, m.absmax, m.nonfinite) for m in moments]
        draft.put_all("parameter", COLUMN["weight_rms"], self._rows, kept[:count])
        draft.put_all("parameter", COLUMN["grad_rms"], rows, kept[count:])
        if histograms:
            counts = packed.histograms()
            draft.count_all("weight", self._rows, counts[:count])
            if rows:
                draft.count_all("gradient", rows, counts[count:])
        self._moments = moments[:count]
        return moments[count:]

    def finish(
        self, draft: Draft, histograms: bool, adam: Sequence[tuple[Number, Number]]
    ) -> list[Tensor]:
        """The optimizer has stepped: measure the update; returns the weights that it left non-finite.

        `adam`: update factor and share ruled by eps of each.
        """
        if self._moments is None:
            self._measure(draft, histograms, [], [])
        if not self.is_current:  # given other data in the meantime
            return []
        changes = self._measure_update(draft, adam)
        found = zip(self.tensors, changes, strict=True)
        suspects = [tensor for tensor, change in found if not math.isfinite(change)]
        return [tensor for tensor in suspects if not all_finite([tensor.detach()])]

    def _measure_update(self, draft: Draft, adam: Sequence[Any]) -> list[float]:
        """Returns the sum of squares of each change."""
        weights = self._moments or []
        kept = {  # infinity less infinity is no 0
            i: share_unchanged(self._views[i], self._before[i])
            for i, each in enumerate(weights)
            if each.nonfinite
        }
        with np.errstate(all="ignore"):
            for view, before in zip(self._views, self._before, strict=True):
                np.subtract(view, before, out=before)
        changes, still = Packed(self._before).as_changes()
        values: list[Any] = []
        for i, (change, each) in enumerate(zip(changes, weights, strict=True)):
            size = each.rms * each.rms * self._sizes[i]
            moved = self.tensors[i].grad is not None and size and change == change
            ratio = math.sqrt(change / size) if moved else math.nan
            same = kept.get(i, still[i])
            values.append((ratio, 1.0 if same == 1.0 else 0.0, same, *adam[i]))
        draft.put_all("parameter", COLUMN["update_ratio"], self._rows, values)
        return changes
