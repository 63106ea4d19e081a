"""The fixed signed-log2 bins of every histogram: comparable across steps, layers, runs and versions.

96 bins. Bin 48 holds exact zeros and everything smaller than 2^-32 in size. Bins 49 … 95 hold positive values by
their exponent: bin 49 + k holds [2^(k-32), 2^(k-31)), the last one everything from 2^14 up. Bins 47 … 0
mirror them for negative values, with one bin (0) left for the largest. Non-finite values are in no bin: they are
counted apart.
"""

import numpy as np
import numpy.typing as npt

BINS = 96
ZERO_BIN = 48
MIN_EXPONENT = -32
MAX_EXPONENT = 14
"""Exponent at which the outermost bins begin: values of size 2^14 and more share one."""


def edges() -> npt.NDArray[np.float64]:
    """Bin edges in rising order; shape `(BINS + 1,)`, the outermost are -inf and inf.

    Bin `i` reaches from `edges()[i]` to `edges()[i + 1]`. The first bin is never filled (there is one more bin on
    the negative side than exponents need), which keeps the zero bin in the middle.
    """
    positive = 2.0 ** np.arange(MIN_EXPONENT, MAX_EXPONENT + 1)
    return np.concatenate([[-np.inf, -np.inf], -positive[::-1], positive, [np.inf]])


def centers() -> npt.NDArray[np.float64]:
    """A representative value for each bin (geometric middle; 0 for the zero bin); shape `(BINS,)`."""
    middle = 2.0 ** (np.arange(MIN_EXPONENT, MAX_EXPONENT + 1) + 0.5)
    return np.concatenate([[-(2.0 ** (MAX_EXPONENT + 1.5))], -middle[::-1], [0.0], middle])


def bin_of(values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Bin index of each finite value; the reference that faster code is tested against."""
    array = np.asarray(values, dtype=np.float64)
    size = np.abs(array)
    with np.errstate(divide="ignore"):
        exponent = (
            np.frexp(size)[1] - 1
        )  # size = m * 2^(e), 0.5 <= m < 1, so floor(log2(size)) = e - 1
    offset = np.clip(exponent - MIN_EXPONENT, 0, MAX_EXPONENT - MIN_EXPONENT) + 1
    offset = np.where(size < 2.0**MIN_EXPONENT, 0, offset)
    return ZERO_BIN + np.sign(array).astype(np.int64) * offset
