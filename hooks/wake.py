"""What a look costs beside our own work on it: its step and those after it find the caches cold, and take longer."""

import math
from collections import deque
from collections.abc import Callable
from statistics import fmean

USUAL = 1e-4
"""Seconds of it as long as nothing else is known: what `benchmarks/overhead` finds in calm hours."""
_USUALLY_WITHIN = 5e-4
"""Standard deviation of that from machine to machine. Steps whose own times differ by much more tell nothing."""
LONGEST = 8
"""Steps of one window: by the eighth, the caches are the training's again."""
SHORTEST = 2
FIRST = 16
"""Looks of a kind that are followed, all those that can be; later each `SELDOM`th."""
SELDOM = 5
"""No multiple or divisor of `pace.HISTOGRAM_EVERY`: samples with histograms are to have their part."""
ENOUGH = 8
"""Looks that must have been followed before they are believed: fewer don't show how they differ."""
_MEMORY = 31
_LEFT_OUT = 10
"""The largest and the smallest one in so many are left out of the mean."""
_NEVER = 10**9


class Excess:
    """How much longer steps took: one tells little, as steps differ by more among themselves.

    So it is a mean of many without the extremes, and believed as far as their spread allows. A median would be less
    than what they add up to: a few leave much behind.
    """

    def __init__(self) -> None:
        self.seconds = USUAL
        """What is to be expected of the next one."""
        self._known: deque[float] = deque(maxlen=_MEMORY)

    def learn(self, excess: float) -> None:
        """Another one was measured."""
        self._known.append(excess)
        count = len(self._known)
        if count < ENOUGH:
            return
        ordered, out = sorted(self._known), count // _LEFT_OUT
        kept = ordered[out : count - out]
        mean, ends = fmean(kept), (kept[0], kept[-1])
        squares = sum((one - mean) ** 2 for one in kept) + sum(
            out * (end - mean) ** 2 for end in ends
        )
        error = math.sqrt(squares / (count - 1) * count) / len(kept)  # Tukey's, of a trimmed mean
        trust = _USUALLY_WITHIN**2 / (_USUALLY_WITHIN**2 + error**2)
        self.seconds = max(USUAL + trust * (mean - USUAL), 0.0)


class Wake:
    """Learns it while the training runs: what the step of a look and those right after it take longer than later ones.

    It differs by ten times from one hour to the next where a machine's caches are shared. The clock is read where the
    step begins, and after each of two windows of quiet steps. Looks that follow upon each other are not measured: each
    then pays for the one before, and all are booked alike.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds of the training's thread without our own work on looks, which is booked already."""
        self._clock = clock
        self._excesses = {True: Excess(), False: Excess()}
        """Of samples and of glances."""
        self._looks = {True: 0, False: 0}
        """So many of each could be followed."""
        self._ended: bool | None = None
        """Of what kind a look was that has just ended."""
        self._followed = False
        """Of what kind the one is that is followed."""
        self._begun = -1
        """The last step at whose begin the clock was read, to look at it."""
        self._readings: list[float] = []
        self._window = 0
        self._due = _NEVER

    def seconds(self, sampled: bool) -> float:
        """What a sample costs beside our own work on it, or else a glance."""
        return self._excesses[sampled].seconds

    def begin(self, step: int) -> None:
        """A step begins that is to be looked at, after one that was not."""
        self._begun, self._readings = step, [self._clock()]

    def looked(self, sampled: bool) -> None:
        """The work on a step that was looked at is nearly over."""
        self._ended, self._due = sampled, _NEVER

    def abandon(self) -> None:
        """Something else comes between: what is under way is not to be measured."""
        self._ended, self._begun, self._due = None, -1, _NEVER

    def next_reading(self, completed: int, planned: int) -> int:
        """The step at whose begin the clock is read next; reads it, if that is now.

        completed: the index of the step that begins. planned: that of the next one that is looked at.
        """
        ended, self._ended = self._ended, None
        if ended is not None and self._begun == completed - 1:
            self._follow(ended, completed, planned)
        if completed == self._due:
            self._read()
        elif completed > self._due:
            self.abandon()
        return self._due

    def _follow(self, sampled: bool, completed: int, planned: int) -> None:
        self._window = min(LONGEST, (planned - completed - 1) // 2)
        if self._window < SHORTEST:
            return
        looks = self._looks[sampled]
        self._looks[sampled] += 1
        if looks < FIRST or looks % SELDOM == 0:
            self._followed, self._due = sampled, completed + self._window

    def _read(self) -> None:
        self._readings.append(self._clock())
        self._due += self._window
        if len(self._readings) == 3:
            begin, middle, end = self._readings
            self.abandon()
            usual = (end - middle) / self._window
            self._excesses[self._followed].learn(middle - begin - (self._window + 1) * usual)
