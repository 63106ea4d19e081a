"""What a sample leaves behind: the steps after it find the caches cold, and take longer than those that follow."""

import math
from collections import deque
from collections.abc import Callable
from statistics import median
from time import thread_time

USUAL = 1e-4
"""Seconds by which the steps after a look take longer together, as long as nothing else is known: what
`benchmarks/overhead` finds in calm hours."""
_USUALLY_WITHIN = 5e-4
"""Standard deviation of that from machine to machine. Steps whose own times differ by much more tell nothing."""
LONGEST = 8
"""Steps of one window: by the eighth, the caches are the training's again."""
SHORTEST = 2
FIRST = 16
"""Samples that are followed, all those that can be; later each `SELDOM`th."""
SELDOM = 5
"""No multiple or divisor of `pace.HISTOGRAM_EVERY`: samples with histograms are to have their part."""
ENOUGH = 5
"""Samples that must have been followed before they are believed: fewer don't show how they differ."""
_MEMORY = 31
_NEVER = 10**9
_SPREAD = 1.4826
"""Standard deviation of normally distributed values whose median distance from their median is 1."""
_ERROR_OF_MEDIAN = 1.2533
"""Standard error of their median, times the root of their number."""


class Wake:
    """Learns it while the training runs: what the steps right after a sample take longer than as many after them.

    It differs by ten times from one hour to the next where a machine's caches are shared. The clock is read three
    times: when our own work on the sample is over, and after each of two windows of quiet steps. It is the processor
    clock of the training's thread, as `Accounts` reads it. One sample tells little, as steps differ by more among
    themselves; so the median of many is taken, and believed as far as their spread allows.
    """

    def __init__(self, clock: Callable[[], float] = thread_time) -> None:
        self._clock = clock
        self._excesses: deque[float] = deque(maxlen=_MEMORY)
        self._seconds = USUAL
        self._followed = self._passed_over = 0
        self._waiting = False
        """Whether a sample is over and the first reading is to come."""
        self._window = 0
        self._readings: list[float] = []
        self._due = _NEVER

    def seconds(self, sampled: bool) -> float:
        """What a look costs beyond its own time. A glance leaves less behind than a sample, and too little to be told
        from noise: the usual is booked for it."""
        return self._seconds if sampled else USUAL

    def looked(self, sampled: bool) -> None:
        """A step that was looked at is over. Two samples in a row are no trouble: what the first one leaves behind is
        not measured then, and booked all the same."""
        self.abandon()
        self._waiting = sampled

    def abandon(self) -> None:
        """Something else comes between: what is under way is not to be measured."""
        self._waiting = False
        self._readings = []
        self._due = _NEVER

    def next_reading(self, completed: int, planned: int) -> int:
        """The step at whose begin the clock is read next; reads it, if that is now.

        completed: the index of the step that begins. planned: that of the next one that is looked at.
        """
        if self._waiting:
            self._waiting = False
            self._follow(completed, planned)
        if completed == self._due:
            self._read()
        elif completed > self._due:
            self.abandon()
        return self._due

    def _follow(self, completed: int, planned: int) -> None:
        self._window = min(LONGEST, (planned - completed - 1) // 2)
        if self._window < SHORTEST:
            return
        if self._followed >= FIRST and self._passed_over < SELDOM - 1:
            self._passed_over += 1
            return
        self._passed_over = 0
        self._due = completed

    def _read(self) -> None:
        self._readings.append(self._clock())
        self._due += self._window
        if len(self._readings) == 3:
            begin, middle, end = self._readings
            self.abandon()
            self._followed += 1
            self._learn((middle - begin) - (end - middle))

    def _learn(self, excess: float) -> None:
        known = self._excesses
        known.append(excess)
        if len(known) < ENOUGH:
            return
        middle = median(known)
        spread = _SPREAD * median(abs(one - middle) for one in known)
        error = _ERROR_OF_MEDIAN * spread / math.sqrt(len(known))
        trust = _USUALLY_WITHIN**2 / (_USUALLY_WITHIN**2 + error**2)
        self._seconds = max(USUAL + trust * (middle - USUAL), 0.0)
