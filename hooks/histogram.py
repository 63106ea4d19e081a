"""Counts in the fixed bins of `wire.bins`, read off the sign and exponent bits."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks.stats import subsample, values_of
from trainvitals.hooks.wire.bins import BINS, MAX_EXPONENT, MIN_EXPONENT, ZERO_BIN

PATTERNS = 512
"""Values of the nine leading bits of a float32: the sign, then the exponent."""
SUBSAMPLE_ABOVE = 1 << 18
"""Elements: a larger tensor is counted from a strided sub-sample of about this many."""


def _bin_of_pattern() -> npt.NDArray[np.int64]:
    """Bin of each sign and exponent pattern, shape `(PATTERNS,)`; `BINS` for NaN and infinity."""
    pattern = np.arange(PATTERNS)
    exponent = (pattern & 255) - 127
    offset = np.clip(exponent - MIN_EXPONENT + 1, 0, MAX_EXPONENT - MIN_EXPONENT + 1)
    bins: npt.NDArray[np.int64] = ZERO_BIN + np.where(pattern >= 256, -offset, offset)
    bins[exponent == 128] = BINS
    return bins


_BINS = _bin_of_pattern()
_ORDER = np.argsort(_BINS, kind="stable")
_BEGINS = np.searchsorted(_BINS[_ORDER], np.arange(BINS + 1))
"""Where the patterns of each bin begin in `_ORDER`."""
_UNUSED = np.setdiff1d(np.arange(BINS + 1), _BINS)
"""Bins without a pattern, of which `reduceat` makes a copy of the next one's first."""


def count_patterns(tensor: Tensor) -> Tensor:
    """How often each sign and exponent occurs; shape `(PATTERNS,)`, int64, on the tensor's device.

    Never waits for the device. Of a tensor above `SUBSAMPLE_ABOVE` elements the sub-sample is counted.
    """
    flat = subsample(values_of(tensor), SUBSAMPLE_ABOVE)
    if flat.dtype == torch.bfloat16:
        patterns = (flat.contiguous().view(torch.int16) >> 7).to(torch.int32)
    else:
        patterns = flat.to(torch.float32).contiguous().view(torch.int32) >> 23
    patterns &= PATTERNS - 1
    if flat.device.type == "cpu":
        return torch.bincount(patterns, minlength=PATTERNS)
    counts = torch.zeros(PATTERNS, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(
        0, patterns.long(), torch.ones_like(counts[:1]).expand(len(patterns))
    )


def fold(patterns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Counts in the fixed bins; `(rows, PATTERNS)` to `(rows, BINS)`. Non-finite values are left out."""
    folded: npt.NDArray[np.int64] = np.add.reduceat(patterns[:, _ORDER], _BEGINS, axis=1)
    folded[:, _UNUSED] = 0
    return folded[:, :BINS]
