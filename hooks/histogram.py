"""Counts in the fixed bins of `wire.bins`, read off the sign and exponent bits."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import readout
from trainvitals.hooks.plain import array, flat, stride
from trainvitals.hooks.readout import Number
from trainvitals.hooks.wire.bins import BINS, MAX_EXPONENT, MIN_EXPONENT, ZERO_BIN

PATTERNS = 512
"""Values of the nine leading bits of a float32: the sign, then the exponent."""
SUBSAMPLE_ABOVE = 1 << 12
"""Elements: of a larger tensor a sub-sample of at most this many is counted.

The counted share of values below any limit then differs from the tensor's by more than 2.6 points with a
probability below 1 % (Dvoretzky, Kiefer and Wolfowitz: sqrt(ln(2 / 0.01) / (2 n)) for n independent elements).
A bin spans a factor of two, so that quantiles between the 3rd and 97th percentile of a smooth distribution are
right within a bin.
"""
Counts: TypeAlias = npt.NDArray[Any] | Tensor
"""How often each sign and exponent occurs; shape `(PATTERNS,)`; a tensor where they are on a device."""

_SMALLEST = MIN_EXPONENT + 127
"""Exponent bits of the first bin that is not the zero bin."""
_LARGEST = MAX_EXPONENT + 127
"""Exponent bits of the last bin, which holds all larger ones too."""
_NONFINITE = 255
_SIGN = 256
_TO_PATTERN = np.uint32(23)


def count_patterns(
    tensor: Tensor, factor: Number | None = None, values: npt.NDArray[Any] | None = None
) -> Counts:
    """Count the elements of what `plain` gave, multiplied with `factor`. Never waits for a device.

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
    """Of a packed tensor of `size` elements, every how many of them one is counted: an odd number."""
    return -(-size // SUBSAMPLE_ABOVE) | 1 if size > SUBSAMPLE_ABOVE else 1


def count_together(
    values: npt.NDArray[np.float32], offsets: npt.NDArray[np.int32], tensors: int
) -> npt.NDArray[np.int64]:
    """Count the elements of several tensors end to end; shape `(tensors, PATTERNS)`.

    `offsets`: `PATTERNS` times the number of the tensor that each element belongs to.
    """
    places = offsets + (values.view(np.uint32) >> _TO_PATTERN)
    return np.bincount(places, minlength=tensors * PATTERNS).reshape(tensors, PATTERNS)


def _count(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.bincount(values.view(np.uint32) >> _TO_PATTERN, minlength=PATTERNS)


def _late(part: Tensor) -> Tensor:
    patterns = (part.to(torch.float32).contiguous().view(torch.int32) >> 23) & (PATTERNS - 1)
    counts = torch.zeros(PATTERNS, dtype=torch.int64, device=part.device)
    ones = torch.ones_like(counts[:1]).expand(len(patterns))
    return counts.scatter_add_(0, patterns.long(), ones)


def _bin_of_patterns() -> npt.NDArray[np.int64]:
    """The bin of each pattern; `BINS` for those of non-finite values."""
    exponents = np.arange(_SIGN)
    away = np.clip(exponents, _SMALLEST - 1, _LARGEST) - (_SMALLEST - 1)
    found: npt.NDArray[np.int64] = np.concatenate([ZERO_BIN + away, ZERO_BIN - away])
    found[[_NONFINITE, _SIGN + _NONFINITE]] = BINS
    return found


_BIN = _bin_of_patterns()
_BY_BIN = np.argsort(_BIN, kind="stable")[:-2]
"""Patterns of finite values in the order of their bins."""
_BIN_BEGINS = np.searchsorted(_BIN[_BY_BIN], np.arange(1, BINS))
"""Where those of each bin begin, but for the first one, which is never filled."""


def fold(patterns: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Counts in the fixed bins; `(rows, PATTERNS)` to `(rows, BINS)`. Non-finite values are left out."""
    folded = np.zeros((len(patterns), BINS), dtype=np.int64)
    folded[:, 1:] = np.add.reduceat(patterns[:, _BY_BIN], _BIN_BEGINS, axis=1)
    return folded


def unfold(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Patterns that `fold` makes these counts of; shape `(BINS,)` to `(PATTERNS,)`."""
    patterns = np.zeros(PATTERNS, dtype=np.int64)
    patterns[0] = counts[ZERO_BIN]
    sides = counts[ZERO_BIN + 1 :], counts[:ZERO_BIN][::-1]
    for begin, side in zip((0, _SIGN), sides, strict=True):
        patterns[begin + _SMALLEST : begin + _SMALLEST + len(side)] = side
    return patterns
