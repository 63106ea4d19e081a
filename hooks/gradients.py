"""Gradients and weights at an optimizer step: the norm at every step, statistics at sampled ones."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Optimizer

from trainvitals.hooks import readout
from trainvitals.hooks.adam import AdamUpdate
from trainvitals.hooks.draft import COLUMN, Draft
from trainvitals.hooks.histogram import count_patterns
from trainvitals.hooks.memory import Floats, Memory, gradient_view
from trainvitals.hooks.packed import SMALL, Packed, is_single
from trainvitals.hooks.plain import Array, array, flat, plain, stride, values
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.registry import Parameter, Rows
from trainvitals.hooks.stats import Moments, moments, sum_of_squares, values_of
from trainvitals.hooks.wire.records import HistogramKind

FEW = 1 << 15
"""Elements that are few: see `GradientNorm`."""
KEPT = 1 << 14
"""Elements of a parameter that are kept from before the optimizer's step to compare with, at most.

From n of them RMS(change) and RMS(weight) have relative standard errors of sqrt((k - 1) / (4 n)), 0.55 % at a
kurtosis k of 3: the update ratio is right within 2.5 % in three standard errors. Where few rows of an embedding are
touched, the kurtosis is about their inverse share, and the error grows accordingly.
"""
KEPT_IN_ALL = 1 << 22
"""Elements kept of all parameters together: 16 MiB in float32."""
_UPDATE = COLUMN["update_ratio"]
_TINY_NORM = 1e-14
"""A norm below that may lack elements whose squares float32 does not hold."""
_SIZES = [Moments._fields.index(name) for name in ("rms", "std", "absmax", "nonfinite")]


class GradientNorm:
    """The global norm over the gradients of one optimizer."""

    def __init__(
        self, gradients: list[Tensor], scale: Tensor | None = None, few: bool = False
    ) -> None:
        """`scale`: what a gradient scaler left the gradients multiplied with (fused optimizers).

        `few`: there are so few elements that one copy and one norm are faster than a norm for each tensor.
        """
        norms = _flat(gradients) if few and gradients else None
        if norms is None:
            norms = _norms(gradients)
        if norms is None:
            self.value: Number = 0.0
            return
        total = torch.linalg.vector_norm(norms)
        if scale is not None:
            total = total / scale.to(total.device)
        self.value = number(total)
        if isinstance(self.value, float) and (math.isinf(self.value) or self.value < _TINY_NORM):
            # Finite gradients can overflow when squared in float32, or vanish. They never make a NaN, which may come at
            # every step from now on and is not looked at again.
            exact = _norms(gradients, torch.float64)
            assert exact is not None
            total = torch.linalg.vector_norm(exact)
            self.value = number(total if scale is None else total / scale.to(total.device))


def _flat(tensors: list[Tensor]) -> Tensor | None:
    """All elements in one tensor; None where they do not fit into one."""
    try:
        flat: Tensor = torch._C._nn.flatten_dense_tensors(tensors)
    except (RuntimeError, NotImplementedError):  # sparse, or on several devices
        return None
    return flat if flat.dtype.itemsize >= 4 else flat.float()


def _norms(tensors: list[Tensor], dtype: torch.dtype | None = None) -> Tensor | None:
    """Norm of each tensor as one tensor, on the first one's device; None for an empty list."""
    if not tensors:
        return None
    if dtype is None and all(map(readout.on_host, tensors)):
        squares = [_square(tensor) for tensor in tensors]
        return torch.from_numpy(np.sqrt(np.array(squares)))
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        dense = values_of(tensor)
        groups.setdefault((dense.device, dense.dtype), []).append(dense)
    parts: list[Tensor] = []
    for (_, kind), members in groups.items():
        wider = dtype or (torch.float32 if kind.itemsize < 4 else kind)
        parts.append(torch.stack(torch._foreach_norm(members, 2, dtype=wider)))
    if len(parts) == 1:
        return parts[0]
    return torch.cat([part.to(parts[0].device, torch.float64) for part in parts])


def _square(tensor: Tensor) -> float:
    """Sum of squares of a tensor on the CPU."""
    dense = plain(tensor)
    if dense is None:
        return 0.0
    found = values(dense) if dense.numel() <= KEPT else None
    if found is not None:
        return sum_of_squares(found, exact=False)
    wide = torch.float64 if dense.dtype is torch.float64 else torch.float32
    norm = float(torch.linalg.vector_norm(dense, dtype=wide).numpy())
    return norm * norm


def root_of_squares(norms: list[Number]) -> Number:
    """The norm over several groups of gradients, from the norm of each."""
    if len(norms) == 1:
        return norms[0]
    total: Number = 0.0
    for norm in norms:
        total = total + norm * norm
    return total**0.5


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether CPU tensors hold only finite values."""
    norms = _norms(tensors)
    if norms is None or math.isfinite(float(norms.sum().cpu().numpy())):
        return True
    return all(bool(torch.isfinite(values_of(tensor)).all()) for tensor in tensors)


class _Kept(NamedTuple):
    """A parameter of which some elements are remembered."""

    row: int
    tensor: Tensor
    step: int
    """Every how many elements one is remembered."""
    before: Any
    """A flat numpy array; on a device a tensor."""


class _Small(NamedTuple):
    """A parameter that is copied as a whole and measured together with others."""

    row: int
    tensor: Tensor
    view: Array


class _Gradients(NamedTuple):
    """Copies of small gradients."""

    rows: list[int]
    values: Floats
    sizes: list[int]


class StepStatistics:
    """Statistics of the parameters of one optimizer round one sampled step."""

    def __init__(
        self,
        parameters: list[Parameter],
        rows: Rows,
        draft: Draft,
        histograms: bool,
        optimizer: Optimizer | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Takes the weights; call it before the optimizer moves anything. `memory`: kept between samples."""
        self._draft = draft
        self._histograms = histograms
        self._memory = memory or Memory()
        self._adam = AdamUpdate(optimizer, self._memory)
        self._kept: list[_Kept] = []
        self._small: list[_Small] = []
        self._taken = False
        self._suspects: set[int] = set()
        """Rows whose gradient was not finite."""
        self._limit = max(1, min(KEPT, KEPT_IN_ALL // max(len(parameters), 1)))
        room = KEPT_IN_ALL
        for parameter in parameters:
            row = rows.find(parameter.name)
            if row is None:
                continue
            view = self._memory.view(parameter.tensor)
            if view is not None and len(view) <= SMALL and len(view) <= room and is_single(view):
                room -= len(view)
                self._small.append(_Small(row, parameter.tensor, view))
            else:
                self._keep(row, parameter.tensor)
        self._before = self._memory.before.join([small.view for small in self._small])
        self._sizes = [len(small.view) for small in self._small]
        self._gradients = _Gradients([], self._before[:0], [])

    def _keep(self, row: int, tensor: Tensor) -> None:
        weight = plain(tensor)
        if weight is not None:
            step = stride(weight, self._limit)
            self._kept.append(_Kept(row, tensor, step, _copy(weight, step)))
            self._take("weight", row, weight)

    def take_gradients(self, scale: Tensor | None = None) -> None:
        """Takes the gradients, as the optimizer gets them before clipping; a second call does nothing.

        `scale`: what a gradient scaler left them multiplied with.
        """
        if self._taken:
            return
        self._taken = True
        factor = None if scale is None else 1.0 / number(scale)
        places: list[int] = []
        small: list[Array] = []
        members = [(kept.row, kept.tensor) for kept in self._kept]
        members += [(small.row, small.tensor) for small in self._small]
        for row, tensor in members:
            if tensor.grad is None:
                continue
            view = gradient_view(tensor.grad)
            if view is not None and len(view) <= SMALL:
                places.append(row)
                small.append(view)
                continue
            gradient = plain(tensor.grad)
            if gradient is not None:
                self._take("grad", row, gradient, factor)
        if small:
            copy = self._memory.gradients.join(small)
            if isinstance(factor, float):
                with np.errstate(all="ignore"):
                    copy *= np.float32(factor)
            self._gradients = _Gradients(places, copy, [len(gradient) for gradient in small])

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
            self._draft.count(_KIND[prefix], row, count_patterns(tensor, factor, known))

    def finish(self) -> list[Tensor]:
        """Take the update; call it after the optimizer. Returns the weights (CPU) it left non-finite.

        Of a large parameter only the elements kept are looked at for that, unless its gradient was not finite.
        """
        members = [kept.tensor for kept in self._kept] + [small.tensor for small in self._small]
        adam = self._adam.of(members)
        spoiled = self._finish_kept(adam[: len(self._kept)])
        if self._small:
            spoiled += self._finish_small(adam[len(self._kept) :])
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
            size, same = sum_of_squares(before), _same(after, before)
            self._put_update(row, tensor, change, size, same, factors)
            if (row in self._suspects or not math.isfinite(change)) and not all_finite([weight]):
                spoiled.append(tensor)
        return spoiled

    def _finish_small(self, adam: Sequence[tuple[Number, Number]]) -> list[Tensor]:
        rows = [small.row for small in self._small]
        taken = self._take_small(rows)
        views = [self._memory.view(small.tensor) for small in self._small]
        now = [view for view in views if view is not None]
        if [len(view) for view in now] != self._sizes:  # given other data in the meantime
            return []
        after = Packed(self._memory.after.join(now), self._sizes)
        changes, same = after.changes(Packed(self._before, self._sizes))
        spoiled: list[Tensor] = []
        for index, (row, tensor, _) in enumerate(self._small):
            size = taken[index][0] ** 2 * self._sizes[index]
            self._put_update(row, tensor, changes[index], size, same[index], adam[index])
            if not math.isfinite(changes[index]) and not all_finite([tensor.detach()]):
                spoiled.append(tensor)
        return spoiled

    def _take_small(self, rows: list[int]) -> list[list[float]]:
        """Measures small weights and gradients, few of them in one go; returns those of the weights."""
        found = self._gradients
        weights, gradients = (
            Packed(self._before, self._sizes),
            Packed(found.values, found.sizes),
        )
        if len(self._before) > FEW:  # joining them would cost more than it saves
            self._put_small("grad", found.rows, gradients.moments())
            taken = weights.moments()
        else:
            both = np.concatenate([self._before, found.values])
            moments = Packed(both, self._sizes + found.sizes).moments()
            taken = moments[: len(rows)]
            self._put_small("grad", found.rows, moments[len(rows) :])
        if self._histograms:
            self._draft.count_all("weight", rows, weights.patterns())
            self._draft.count_all("gradient", found.rows, gradients.patterns())
        return self._put_small("weight", rows, taken)

    def _put_small(
        self, prefix: str, rows: list[int], moments: npt.NDArray[np.float64]
    ) -> list[list[float]]:
        values: list[list[float]] = moments[:, _SIZES].tolist()
        self._draft.put_all("parameter", COLUMN[f"{prefix}_rms"], rows, values)
        return values

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


_KIND: dict[str, HistogramKind] = {"weight": "weight", "grad": "gradient"}
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _copy(weight: Tensor, step: int) -> Any:
    """Every `step`-th element: numpy on the CPU, else a tensor on the device."""
    part = flat(weight)[::step]
    return array(part).copy() if readout.on_host(weight) else part.clone()


def _same(after: Any, before: Any) -> float:
    bits = np.int32 if before.dtype == np.float32 else np.int64
    return float(np.count_nonzero(after.view(bits) == before.view(bits))) / len(before)


def _late_change(now: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared change, squared size and share of unchanged elements, on the device."""
    kind = _INTEGERS[now.dtype.itemsize]
    same = (now.contiguous().view(kind) == before.contiguous().view(kind)).float().mean()
    wide = torch.float32 if now.device.type == "mps" else torch.float64
    change = (now.to(wide) - before.to(wide)).square().sum()
    return change, before.to(wide).square().sum(), same
