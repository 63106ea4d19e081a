"""Weights, gradients and updates of the parameters of one optimizer, at a sampled step."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from trainvitals.hooks import histogram, readout
from trainvitals.hooks.adam import AdamUpdate
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.gathered import COLUMN
from trainvitals.hooks.gradients import all_finite
from trainvitals.hooks.memory import Memory
from trainvitals.hooks.plain import Array, array, flat, plain, stride, values
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.registry import Parameter, Rows
from trainvitals.hooks.smallset import SmallSet, small_view
from trainvitals.hooks.stats import moments, share_unchanged, sum_of_squares
from trainvitals.hooks.wire.records import HistogramKind

KEPT = 1 << 14
"""Elements of a parameter that are kept from before the optimizer's step to compare with, at most.

From n of them RMS(change) and RMS(weight) have relative standard errors of sqrt((k - 1) / (4 n)), 0.55 % at a
kurtosis k of 3: the update ratio is right within 2.5 % in three standard errors. Where few rows of an embedding are
touched, the kurtosis is about their inverse share, and the error grows accordingly.
"""
KEPT_IN_ALL = 1 << 22
"""Elements kept of all parameters together: 16 MiB in float32."""
_UPDATE = COLUMN["update_ratio"]
_KIND: dict[str, HistogramKind] = {"weight": "weight", "grad": "gradient"}
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Members:
    """Parameters of one optimizer of which statistics are taken: found out once, kept from sample to sample."""

    def __init__(
        self, parameters: list[Parameter], rows: Rows, optimizer: Optimizer | None = None
    ) -> None:
        """Those without a row are left out."""
        self.parameters = parameters
        self.memory = Memory()
        self.adam = AdamUpdate(optimizer, self.memory)
        self.large: list[tuple[int, Tensor]] = []
        """Rows and tensors of those that are measured one by one."""
        self.kept = max(1, min(KEPT, KEPT_IN_ALL // max(len(parameters), 1)))
        """Elements of each of these that are remembered."""
        small: list[tuple[int, Tensor, Array]] = []
        room = KEPT_IN_ALL
        for parameter in parameters:
            row = rows.find(parameter.name)
            if row is None:
                continue
            view = small_view(parameter.tensor, self.memory)
            if view is not None and len(view) <= room:
                room -= len(view)
                small.append((row, parameter.tensor, view))
            else:
                self.large.append((row, parameter.tensor))
        self.small = SmallSet(*map(list, zip(*small, strict=True))) if small else None
        self.small_ids = {id(tensor) for _, tensor, _ in small}
        held = optimizer.param_groups if optimizer is not None else []
        self.holds_small = self.small_ids <= {id(t) for group in held for t in group["params"]}
        """Whether the optimizer holds all the small ones."""


class _Kept(NamedTuple):
    """A parameter of which some elements are remembered."""

    row: int
    tensor: Tensor
    step: int
    """Every how many elements one is remembered."""
    before: Any
    """A flat numpy array; on a device a tensor."""


class StepStatistics:
    """Statistics of the parameters of one optimizer round one sampled step."""

    def __init__(self, members: Members, draft: Draft, histograms: bool) -> None:
        """Takes the weights; call it before the optimizer moves anything."""
        self.members = members
        self._draft = draft
        self._histograms = histograms
        self._kept: list[_Kept] = []
        self._taken = False
        self._suspects: set[int] = set()
        """Rows whose gradient was not finite."""
        for row, tensor in members.large:
            weight = plain(tensor)
            if weight is not None:
                step = stride(weight, members.kept)
                self._kept.append(_Kept(row, tensor, step, _copy(weight, step)))
                self._take("weight", row, weight)
        if members.small is not None:
            members.small.take_weights()

    def take_gradients(self, scale: Tensor | None = None) -> float | None:
        """Takes the gradients, as the optimizer gets them before clipping; a second call does nothing.

        `scale`: what a gradient scaler left them multiplied with. Returns the norm over those of the small parameters;
        None where they were not taken together.
        """
        if self._taken:
            return None
        self._taken = True
        factor = None if scale is None else 1.0 / number(scale)
        large, norm = self.members.large, None
        small = self.members.small
        if small is not None:
            known = 1.0 if factor is None else factor
            if isinstance(known, float):
                norm = small.take_gradients(self._draft, self._histograms, known)
            if norm is None:
                large = large + small.members
        for row, tensor in large:
            gradient = None if tensor.grad is None else plain(tensor.grad)
            if gradient is not None:
                self._take("grad", row, gradient, factor)
        return norm

    def _take(self, prefix: str, row: int, tensor: Tensor, factor: Number | None = None) -> None:
        known = values(tensor)
        taken = moments(tensor, values=known)
        sizes: Sequence[Number] = (taken.rms, taken.std, taken.absmax)
        if factor is not None:
            sizes = [size * factor for size in sizes]
        if isinstance(taken.nonfinite, float) and taken.nonfinite:
            self._suspects.add(row)
        self._draft.put("parameter", COLUMN[f"{prefix}_rms"], row, (*sizes, taken.nonfinite))
        if self._histograms:
            self._draft.count(_KIND[prefix], row, histogram.count(tensor, factor, known))

    def finish(self) -> list[Tensor]:
        """Take the update; call it after the optimizer. Returns the weights (CPU) it left non-finite.

        Of a large parameter only the elements kept are looked at for that, unless its gradient was not finite.
        """
        small, adam = self.members.small, self.members.adam
        spoiled = self._finish_kept(adam.of([kept.tensor for kept in self._kept]))
        if small is not None:
            spoiled += small.finish(self._draft, self._histograms, adam.of(small.tensors))
        return spoiled

    def _finish_kept(self, adam: Sequence[tuple[Number, Number]]) -> list[Tensor]:
        spoiled: list[Tensor] = []
        for (row, tensor, step, before), factors in zip(self._kept, adam, strict=True):
            weight = plain(tensor)
            if weight is None:
                continue
            now = flat(weight)[::step]
            if now.numel() != len(before):  # given other data in the meantime
                continue
            if isinstance(before, Tensor):
                self._put_update(row, tensor, *_late_change(now, before), factors)
                continue
            after = array(now)
            with np.errstate(all="ignore"):
                change = sum_of_squares(after - before)
            size, same = sum_of_squares(before), share_unchanged(after, before)
            self._put_update(row, tensor, change, size, same, factors)
            if (row in self._suspects or not math.isfinite(change)) and not all_finite([weight]):
                spoiled.append(tensor)
        return spoiled

    def _put_update(
        self,
        row: int,
        tensor: Tensor,
        change: Number,
        size: Number,
        same: Number,
        adam: tuple[Number, Number],
    ) -> None:
        """`change`, `size`: sums of squares; `same`: share of elements that kept all of their bits."""
        ratio: Number = math.nan
        unchanged: Number
        if isinstance(change, Tensor):
            ratio, unchanged = (change / size) ** 0.5, (same == 1.0) * 1.0
        else:
            ratio = math.sqrt(change / size) if size and change == change else math.nan
            unchanged = 1.0 if same == 1.0 else 0.0
        if tensor.grad is None:  # not stepped
            ratio = ratio * math.nan
        self._draft.put("parameter", _UPDATE, row, (ratio, unchanged, same, *adam))


def _copy(weight: Tensor, step: int) -> Any:
    """Every `step`-th element: numpy on the CPU, else a tensor on the device."""
    part = flat(weight)[::step]
    return array(part).copy() if readout.on_host(weight) else part.clone()


def _late_change(now: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared change, squared size and share of unchanged elements, on the device."""
    kind = _INTEGERS[now.dtype.itemsize]
    same = (now.contiguous().view(kind) == before.contiguous().view(kind)).float().mean()
    wide = torch.float32 if now.device.type == "mps" else torch.float64
    change = (now.to(wide) - before.to(wide)).square().sum()
    return change, before.to(wide).square().sum(), same
