"""The small parameters of one optimizer: copied as a whole, and measured together."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks.draft import COLUMN, Draft
from trainvitals.hooks.gradients import all_finite, joined
from trainvitals.hooks.memory import Floats, Memory, Room
from trainvitals.hooks.packed import SMALL, Packed, is_single
from trainvitals.hooks.plain import Array
from trainvitals.hooks.readout import Number
from trainvitals.hooks.stats import Moments

_SIZES = [Moments._fields.index(name) for name in ("rms", "std", "absmax", "nonfinite")]
_RMS = Moments._fields.index("rms")


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
        self._weights, self._moved = Room(), Room()
        self._before = self._weights.join([])
        self._stepped: list[int] = []
        """Those with a gradient, by their place here."""
        self._gradients = self._before
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
        self._before = self._weights.join(self._views)
        self._stepped, self._gradients = [], self._before[:0]

    def take_gradients(self, factor: float) -> Tensor | None:
        """Copy the gradients, of which `factor` times as much counts: as one tensor, None where they do not fit into
        one. Those without one have not stepped."""
        stepped = [(i, tensor.grad) for i, tensor in enumerate(self.tensors)]
        given = [(i, gradient) for i, gradient in stepped if gradient is not None]
        copy = joined([gradient for _, gradient in given])
        if copy is None or type(copy) is not Tensor or copy.dtype is not torch.float32:
            return None
        if len(given) == 1:
            copy = copy.resolve_neg().clone()  # it was a view
        self._stepped, self._gradients = [i for i, _ in given], copy.numpy()
        self._factor = factor
        return copy

    def finish(
        self, draft: Draft, histograms: bool, adam: Sequence[tuple[Number, Number]]
    ) -> list[Tensor]:
        """Measure all, after the optimizer; returns the weights that it left non-finite.

        `adam`: update factor and share ruled by eps of each.
        """
        size = self._measure(draft, histograms)
        if not self.is_current:  # given other data in the meantime
            return []
        after = Packed(self._moved.join(self._views), self._sizes)
        changes, same = after.changes(self._before)
        values: list[tuple[float, ...]] = []
        for index, tensor in enumerate(self.tensors):
            change, whole = changes[index], size[index]
            known = tensor.grad is not None and whole and change == change
            ratio = math.sqrt(change / whole) if known else math.nan
            unchanged = 1.0 if same[index] == 1.0 else 0.0
            values.append((ratio, unchanged, same[index], *adam[index]))  # type: ignore[arg-type]
        draft.put_all("parameter", COLUMN["update_ratio"], self._rows, values)
        suspects = [
            t for t, change in zip(self.tensors, changes, strict=True) if not math.isfinite(change)
        ]
        return [tensor for tensor in suspects if not all_finite([tensor.detach()])]

    def _measure(self, draft: Draft, histograms: bool) -> list[float]:
        """Weights and gradients, in one go; returns the sum of squares of each weight."""
        rows, sizes = (
            [self._rows[i] for i in self._stepped],
            tuple(self._sizes[i] for i in self._stepped),
        )
        count = len(self._rows)
        gradients: Floats = self._gradients
        if self._factor != 1.0:
            with np.errstate(all="ignore"):
                gradients = gradients * np.float32(self._factor)
        packed = Packed(np.concatenate([self._before, gradients]), self._sizes + sizes)
        moments = packed.moments()
        kept = moments[:, _SIZES].tolist()
        draft.put_all("parameter", COLUMN["weight_rms"], self._rows, kept[:count])
        draft.put_all("parameter", COLUMN["grad_rms"], rows, kept[count:])
        if histograms:
            patterns = packed.patterns()
            draft.count_all("weight", self._rows, patterns[:count])
            if rows:
                draft.count_all("gradient", rows, patterns[count:])
        squares: list[float] = (moments[:count, _RMS] ** 2 * self._sizes).tolist()
        return squares
