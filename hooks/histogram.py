"""Counts in the fixed bins of `wire.bins`, read off the sign and exponent bits."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import readout
from trainvitals.hooks.plain import array, even_step, flat, stride
from trainvitals.hooks.readout import Number
from trainvitals.hooks.wire.bins import BINS, MAX_EXPONENT, MIN_EXPONENT, ZERO_BIN

PATTERNS = 512
"""Values of the nine leading bits of a float32: the sign, then the exponent."""
SUBSAMPLE_ABOVE = 1 << 12
"""Elements: of a larger tensor a sub-sample of about this many is counted, at least half of them.

The counted share of values below any limit then differs from the tensor's by more than 3.6 points with a
probability below 1 % (Dvoretzky, Kiefer and Wolfowitz: sqrt(ln(2 / 0.01) / (2 n)) for n independent elements).
A bin spans a factor of two, so that quantiles between the 4th and 96th percentile of a smooth distribution are
right within a bin.
"""
Counts: TypeAlias = npt.NDArray[Any] | Tensor
"""How many values each bin holds, shape `(BINS,)`; a tensor of shape `(PATTERNS,)` where they are on a device."""

_SMALLEST = MIN_EXPONENT + 127
"""Exponent bits of the first bin that is not the zero bin."""
_LARGEST = MAX_EXPONENT + 127
"""Exponent bits of the last bin, which holds all larger ones too."""
_NONFINITE = 255
_SIGN = 256
_TO_PATTERN = np.uint32(23)


def count(
    tensor: Tensor, factor: Number | None = None, values: npt.NDArray[Any] | None = None
) -> Counts:
    """Count the elements of what `plain` gave, multiplied with `factor`; those that are not finite are left out.

    Never waits for a device: there the counts of patterns are a tensor.
    `values`: what `plain.values` gave of it, if known. Elements of a float64 tensor beyond what float32 holds are
    left out like non-finite ones.
    """
    if values is None:
        part = flat(tensor)[:: stride(tensor, SUBSAMPLE_ABOVE)]
        if not readout.on_host(tensor):
            return _late(part if factor is None else part * factor)
        values = array(part)
    elif len(values) > SUBSAMPLE_ABOVE:
        values = values[:: stride(tensor, SUBSAMPLE_ABOVE)]
    if factor is not None or values.dtype != np.float32:
        with np.errstate(all="ignore"):
            values = (values * (1.0 if factor is None else factor)).astype(np.float32)
    return _count(values)


def distance(size: int) -> int:
    """Of a packed tensor of `size` elements, every how many of them one is counted."""
    return even_step(size, [size], SUBSAMPLE_ABOVE) if size > SUBSAMPLE_ABOVE else 1


def count_together(
    values: npt.NDArray[np.float32], offsets: npt.NDArray[np.intp], tensors: int
) -> npt.NDArray[np.int64]:
    """Count the elements of several tensors end to end; shape `(tensors, BINS)`.

    `offsets`: `PLACES` times the number of the tensor that each element belongs to.
    """
    places = _PLACE.take(values.view(np.uint32) >> _TO_PATTERN, mode="clip")
    places += offsets
    return np.bincount(places, minlength=tensors * PLACES).reshape(tensors, PLACES)[:, :BINS]


def _count(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.bincount(
        _PLACE.take(values.view(np.uint32) >> _TO_PATTERN, mode="clip"), minlength=PLACES
    )[:BINS]


def _late(part: Tensor) -> Tensor:
    patterns = (part.to(torch.float32).contiguous().view(torch.int32) >> 23) & (PATTERNS - 1)
    counts = torch.zeros(PATTERNS, dtype=torch.int64, device=part.device)
    ones = torch.ones_like(counts[:1]).expand(len(patterns))
    return counts.scatter_add_(0, patterns.long(), ones)


def _place_of_patterns() -> npt.NDArray[np.intp]:
    """The bin of each pattern; `BINS` for those of non-finite values."""
    exponents = np.arange(_SIGN, dtype=np.intp)
    away = np.clip(exponents, _SMALLEST - 1, _LARGEST) - (_SMALLEST - 1)
    found: npt.NDArray[np.intp] = np.concatenate([ZERO_BIN + away, ZERO_BIN - away])
    found[[_NONFINITE, _SIGN + _NONFINITE]] = BINS
    return found


PLACES = BINS + 1
"""The bins, and a place for what is in none of them."""
_PLACE = _place_of_patterns()


def here(counts: Counts) -> npt.NDArray[np.int64]:
    """What `count` gave, in the fixed bins; waits for a device. Shape `(BINS,)`."""
    if not isinstance(counts, Tensor):
        return counts
    folded = np.zeros(PLACES, dtype=np.int64)
    np.add.at(folded, _PLACE, counts.cpu().numpy().astype(np.int64))
    return folded[:BINS]
