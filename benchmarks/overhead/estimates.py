"""Figures with their errors, and what may be said of them against a limit."""

import math
import random
from collections.abc import Callable, Sequence
from statistics import median, stdev
from typing import NamedTuple

from benchmarks.overhead.loops import Pairs

DRAWS = 400
"""How often pairs are drawn anew for an error: it is then known to about 4 %."""
SURE = 2.0
"""Standard errors by which a limit must be cleared before anything is said."""


class Figure(NamedTuple):
    """What was measured, and its standard error; infinite where nothing is known of that."""

    value: float
    error: float

    @property
    def low(self) -> float:
        """The least that it may be without doubt."""
        return self.value - SURE * self.error

    @property
    def high(self) -> float:
        """The most."""
        return self.value + SURE * self.error

    def holds(self, limit: float) -> str:
        """Whether it is at most `limit`: "yes", "NO" or "unclear"."""
        return verdict(self.high <= limit, self.low > limit)


def verdict(surely: bool, surely_not: bool) -> str:
    """In the words of the report."""
    return "yes" if surely else "NO" if surely_not else "unclear"


def estimate(figure: Callable[[Pairs], float], pairs: Pairs) -> Figure:
    """A figure of these pairs, and how much it scatters over as many pairs drawn from them: any figure has that,
    and no shape of the scatter is supposed. What is rare has to be in all of them, or else the draw decides on it.
    """
    count, draw = len(pairs), random.Random(0)
    if count < 2:
        return Figure(figure(pairs), math.inf)
    drawn = [figure(pairs.chosen(draw.choices(range(count), k=count))) for _ in range(DRAWS)]
    return Figure(figure(pairs), stdev(drawn) * math.sqrt(count / (count - 1)))


def over_parts(figure: Callable[[Pairs], float], parts: Sequence[Pairs]) -> Figure:
    """The median of what a figure is in several parts, and how much it scatters over as many drawn from them."""
    found, draw = [figure(part) for part in parts], random.Random(0)
    count = len(found)
    drawn = [median(draw.choices(found, k=count)) for _ in range(DRAWS)]
    return Figure(median(found), stdev(drawn) * math.sqrt(count / (count - 1)))


def over_all(pairs: Pairs) -> float:
    """The added share over all blocks together."""
    return pairs.total_added


def of_watched(pairs: Pairs) -> float:
    """The same as a share of the watched time."""
    return pairs.share


def middle(pairs: Pairs) -> float:
    """The median of what pairs tell of the added share."""
    return median(pairs.added)


def middle_seconds(pairs: Pairs) -> float:
    """The median of what they tell of the added seconds a step."""
    return median(pairs.differences)


def quotient(one: Figure, other: Figure) -> Figure:
    """Of two that were measured apart from each other; nothing is known where the second one may be nothing."""
    if other.low <= 0:
        return Figure(one.value / other.value if other.value else math.nan, math.inf)
    value = one.value / other.value
    return Figure(value, math.hypot(one.error, value * other.error) / other.value)
