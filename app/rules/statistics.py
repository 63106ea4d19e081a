"""Small statistics that rules share; the stateful ones can be saved and are bounded in size."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

MAX_CURVE = 200
"""Points of a curve in a finding's evidence."""


def theil_sen(values: npt.NDArray[np.float64]) -> float:
    """Median of the slopes between all pairs of `values` (shape `(n,)`, n >= 2), per index.

    Up to 29 % of the values may be arbitrary without moving it far (Sen 1968).
    """
    first, second = np.triu_indices(len(values), k=1)
    return float(np.median((values[second] - values[first]) / (second - first)))


def median(values: Sequence[float]) -> float:
    """Median of finite values; NaN for none. Of a window of some values much faster than numpy's."""
    return float(statistics.median(values)) if values else math.nan


def mad(values: Sequence[float]) -> float:
    """Median absolute deviation times 1.4826: the standard deviation for Gaussian values."""
    middle = median(values)
    return 1.4826 * median([abs(value - middle) for value in values])


def commonest(names: Iterable[str]) -> tuple[str, int]:
    """The name that comes most often, the first of several, and how often; "" for none."""
    return max(Counter(names).items(), key=lambda entry: entry[1], default=("", 0))


def number(value: float) -> float | str:
    """`value` as JSON can hold it: rounded to 6 digits; "nan", "inf" or "-inf" when not finite."""
    value = float(value)
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


class Curve(msgspec.Struct):
    """A series thinned to at most `MAX_CURVE` points: full at first, then every 2nd, 4th … value."""

    steps: list[int] = msgspec.field(default_factory=list)
    values: list[float] = msgspec.field(default_factory=list)
    stride: int = 1
    seen: int = 0

    def add(self, step: int, value: float) -> None:
        """Take the value of a later step; non-finite values are left out."""
        if not math.isfinite(value):
            return
        if self.seen % self.stride == 0:
            if len(self.steps) == MAX_CURVE:
                self.steps, self.values = self.steps[::2], self.values[::2]
                self.stride *= 2
            if self.seen % self.stride == 0:
                self.steps.append(step)
                self.values.append(value)
        self.seen += 1

    def evidence(self, label: str, low: float | None, high: float | None) -> dict[str, object]:
        """The curve as a finding shows it, with the band in which a healthy run stays."""
        return {
            "steps": list(self.steps),
            "values": [number(value) for value in self.values],
            "band": [low, high],
            "label": label,
        }


class Span(NamedTuple):
    """When something held."""

    first: int
    last: int
    """The first and the last step at which it was seen to hold."""
    resolved: bool
    """Whether it is over."""


class Persistence(msgspec.Struct):
    """Whether a condition held in k of the last n samples: its onset, its last sample, its end."""

    count: int = 0
    over: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """(sample number, step) of the samples of the window in which the condition held."""
    calm: int = 0
    onset: int = -1
    last: int = -1
    clear: int = -1
    """Last sample before the onset in which it did not hold: what is sampled may have begun right after."""
    fired: bool = False
    resolved: bool = False

    @property
    def span(self) -> Span:
        """When the condition held, once it has fired."""
        return Span(self.onset, self.last, self.resolved)

    def update(
        self,
        step: int,
        over: bool,
        *,
        calm: bool,
        k: int,
        n: int,
        sure: bool = False,
        calm_n: int = 0,
    ) -> None:
        """Take a sample.

        over: the condition holds. calm: it is below half its threshold; `n` such samples in a row,
        or `calm_n`, resolve it. sure: fire without waiting for `k` of `n`.
        """
        self.count += 1
        self.over = [entry for entry in self.over if entry[0] > self.count - n]
        if over:
            self.over.append((self.count, step))
            self.calm = 0
        else:
            self.calm = self.calm + 1 if calm else 0
            if not self.fired:
                self.clear = step
        if over and (len(self.over) >= k or sure or (self.fired and not self.resolved)):
            if not self.fired:
                self.onset = self.over[0][1]
            self.fired, self.resolved, self.last = True, False, step
        elif self.fired and self.calm >= (calm_n or n):
            self.resolved = True
