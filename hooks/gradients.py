"""Gradients and weights at an optimizer step: the norm at every step, statistics at sampled ones."""

import math

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks import histogram
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.packed import Packed, is_small
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.registry import Parameter, Rows
from trainvitals.hooks.stats import Moments, moments, subsample, values_of
from trainvitals.hooks.wire.records import HistogramKind

FEW = 1 << 15
"""Elements that are few: see `GradientNorm`."""


class GradientNorm:
    """The global norm over the gradients of one optimizer, and what is needed to find a bad one."""

    def __init__(
        self, gradients: list[Tensor], scale: Tensor | None = None, few: bool = False
    ) -> None:
        """`scale`: what a gradient scaler left the gradients multiplied with (fused optimizers).

        `few`: there are so few elements that one copy and one norm are faster than a norm for each tensor.
        """
        self._gradients = gradients
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
        if isinstance(self.value, float) and math.isinf(self.value):
            # Finite gradients can overflow when squared in float32. They never make a NaN, which may come at
            # every step from now on and is not looked at again.
            exact = _norms(gradients, torch.float64)
            assert exact is not None
            self.value = torch.linalg.vector_norm(exact).item()

    def offenders(self) -> list[int]:
        """Places of the non-finite gradients; CPU only."""
        return [
            index
            for index, gradient in enumerate(self._gradients)
            if not bool(torch.isfinite(values_of(gradient)).all())
        ]


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
    if norms is None or math.isfinite(norms.sum().item()):
        return True
    return all(bool(torch.isfinite(values_of(tensor)).all()) for tensor in tensors)


class StepStatistics:
    """Statistics of the parameters of one optimizer round one sampled step."""

    def __init__(
        self, parameters: list[Parameter], rows: Rows, draft: Draft, histograms: bool
    ) -> None:
        """Takes the weights; call it before the optimizer moves anything."""
        self._draft = draft
        self._histograms = histograms
        self._kept: list[tuple[int, Tensor, Tensor]] = []
        self._small: list[tuple[int, Tensor]] = []
        for parameter in parameters:
            row = rows.find(parameter.name)
            weight = parameter.tensor
            if row is None or not weight.is_floating_point() or weight.numel() == 0:
                continue
            if is_small(weight):
                self._small.append((row, weight))
            else:
                self._kept.append((row, weight, subsample(weight).clone()))
                self._take(row, "weight", weight)
        self._before = self._take_small("weight", self._small)

    def take_gradients(self) -> None:
        """Takes the gradients, as the optimizer gets them; for a closure, as it left them."""
        small: list[tuple[int, Tensor]] = []
        for row, weight in [(row, weight) for row, weight, _ in self._kept] + self._small:
            gradient = weight.grad
            if gradient is None:
                continue
            if is_small(gradient):
                small.append((row, gradient))
            elif values_of(gradient).numel():
                self._take(row, "grad", gradient)
        self._take_small("grad", small)

    def _take_small(self, prefix: str, tensors: list[tuple[int, Tensor]]) -> Packed | None:
        if not tensors:
            return None
        packed = Packed([tensor for _, tensor in tensors])
        for (row, _), taken in zip(tensors, packed.moments(), strict=True):
            self._put_moments(row, prefix, taken)
        if self._histograms:
            for (row, _), counts in zip(tensors, packed.patterns(), strict=True):
                self._put_patterns(row, prefix, counts)
        return packed

    def _take(self, row: int, prefix: str, tensor: Tensor) -> None:
        self._put_moments(row, prefix, moments(tensor))
        if self._histograms:
            self._put_patterns(row, prefix, histogram.count_patterns(tensor))

    def _put_patterns(self, row: int, prefix: str, counts: Tensor) -> None:
        kind: HistogramKind = "weight" if prefix == "weight" else "gradient"
        self._draft.patterns.setdefault(kind, {})[row] = counts

    def _put_moments(self, row: int, prefix: str, taken: Moments) -> None:
        self._draft.put(
            "parameter",
            row,
            {
                f"{prefix}_rms": taken.rms,
                f"{prefix}_std": taken.std,
                f"{prefix}_absmax": taken.absmax,
                f"{prefix}_nonfinite": taken.nonfinite,
            },
        )

    def finish(self) -> list[Tensor]:
        """Take the update; call it after the optimizer. Returns the weights (CPU) it left non-finite."""
        return self._finish_kept() + self._finish_small()

    def _finish_kept(self) -> list[Tensor]:
        spoiled: list[Tensor] = []
        if not self._kept:
            return spoiled
        now = [subsample(weight) for _, weight, _ in self._kept]
        before = [part for _, _, part in self._kept]
        moved = torch._foreach_norm(torch._foreach_sub(now, before))
        sizes = torch._foreach_norm(before)
        for index, (row, weight, part) in enumerate(self._kept):
            move, size = number(moved[index]), number(sizes[index])
            unchanged: Number
            if isinstance(move, float) and isinstance(size, float):
                ratio: Number = move / size if size else math.nan
                # only a zero (or NaN) difference leaves a doubt, which the bits decide
                unchanged = 0.0 if move > 0 else float(_same_bits(now[index], part))
                if not math.isfinite(move) and not bool(torch.isfinite(weight).all()):
                    spoiled.append(weight)
            else:
                ratio = torch.where(
                    moved[index].isnan() | (sizes[index] == 0), math.nan, move / size
                )
                unchanged = 1 - (_bits(now[index]) != _bits(part)).any().float()
            self._put_update(row, weight, ratio, unchanged)
        return spoiled

    def _finish_small(self) -> list[Tensor]:
        spoiled: list[Tensor] = []
        if self._before is None:
            return spoiled
        now = Packed([weight for _, weight in self._small])
        moved = np.sqrt(now.moved(self._before)).tolist()
        sizes = np.sqrt(self._before.squares()).tolist()
        for index, (row, weight) in enumerate(self._small):
            move, size = moved[index], sizes[index]
            same = not move > 0 and now.same_bits(self._before, index)
            if not math.isfinite(move) and not now.finite(index):
                spoiled.append(weight)
            self._put_update(row, weight, move / size if size else math.nan, float(same))
        return spoiled

    def _put_update(self, row: int, weight: Tensor, ratio: Number, unchanged: Number) -> None:
        columns: dict[str, Number] = {"unchanged": unchanged}
        if weight.grad is not None:  # otherwise it was not stepped
            columns["update_ratio"] = ratio
        self._draft.put("parameter", row, columns)


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(_INTEGERS[tensor.dtype.itemsize])


def _same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(_bits(first), _bits(second))
