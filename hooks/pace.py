"""Which steps are sampled: all of the first ones, then as many as the budget pays for."""

import math
from collections import deque
from statistics import median

BURST = 20
"""Steps at the start that are all sampled."""
ANOMALY_BURST = 10
"""Sampled steps after a gradient norm that stands out."""
ANOMALY_FACTOR = 10.0
"""Times the running median from which a gradient norm stands out."""
_MEMORY = 0.1
"""Weight of the newest measurement in the running means."""
_MAX_CREDIT = 12.0
"""Samples that may be saved up: what an anomaly burst spends."""


class Pace:
    """Saves the budgeted share of each step's time and spends it on samples.

    The first burst comes on credit, which half of the savings pay back: over a run the budget holds for all
    samples. `interval` replaces the budget by every k-th step.
    """

    def __init__(self, overhead: float = 0.01, interval: int | None = None) -> None:
        """`overhead`: share of the training's own time that samples may take, 0 to 1."""
        self._overhead = overhead
        self._interval = interval
        self._step_time = 0.0
        self._cost = 0.0
        self._credit = 0.0
        self._debt = 0.0
        self._burst = 0
        self._norms: deque[float] = deque(maxlen=100)
        self._seen = 0
        self._median = math.inf
        self._nonfinite = False

    def due(self, step: int) -> bool:
        """Whether `step` is to be sampled; asked once for each step, in order."""
        if self._interval is not None:
            return step % self._interval == 0
        if step < BURST:
            return True
        if self._burst > 0 and self._credit > -_MAX_CREDIT * self._cost:
            self._burst -= 1
            return True
        # The cost of the first samples is known by now; half of it is enough credit to spread evenly.
        return self._credit >= 0.5 * self._cost

    def spent(self, step: int, step_time: float, cost: float, sampled: bool) -> None:
        """Account for a finished step: its duration and our own share of it, both by one clock, seconds."""
        own = max(step_time - cost, 0.0)
        if sampled:
            self._cost = cost if not self._cost else _mix(self._cost, cost)
        else:
            self._step_time = own if not self._step_time else _mix(self._step_time, own)
        saved = self._overhead * min(own, 10 * self._step_time or own)
        if self._debt > 0:
            self._debt -= saved / 2
            saved /= 2
        self._credit += saved
        if sampled and step < BURST:
            self._debt += cost
        elif sampled:
            self._credit -= cost
        self._credit = min(self._credit, _MAX_CREDIT * self._cost)

    def stands_out(self, norm: float) -> bool:
        """Whether a gradient norm is non-finite or far above the running median."""
        if not math.isfinite(norm):
            return True
        return len(self._norms) >= 10 and norm > ANOMALY_FACTOR * self._median

    def saw_norm(self, norm: float) -> None:
        """Note a step's gradient norm; one that stands out starts a burst.

        Of non-finite ones only the first: what stays broken shows nothing new.
        """
        finite = math.isfinite(norm)
        if self.stands_out(norm) and (finite or not self._nonfinite):
            self._burst = ANOMALY_BURST
        self._nonfinite = not finite
        if finite:
            self._norms.append(norm)
            self._seen += 1
            if self._seen % 10 == 0:  # sorting at every step would cost more than it tells
                self._median = median(self._norms)


def _mix(old: float, new: float) -> float:
    return old + _MEMORY * (new - old)
