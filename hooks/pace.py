"""Which steps are looked at: all first ones that the budget bears, then as many as it pays for."""

import math
from collections import deque
from statistics import median

BURST = 20
"""First steps that are sampled on credit, one after the other; later ones at growing distances."""
SPREAD = 1.0
"""Distance of two later samples on credit, as a share of the steps since the start: half of the credit is for
these, so that a short training is seen from its beginning to its end."""
CREDIT_STEPS = 500
"""Steps whose budget is given on credit. It is paid back with half of what is saved, in twice as many."""
CREDIT_SECONDS = 2.5
"""Seconds of training whose budget is given on credit at least: 25 ms at 1 %, which nobody feels, and without
which a training of tiny steps would be over before anything was seen of it."""
ANOMALY_BURST = 10
"""Sampled steps after a loss or gradient norm that stands out."""
ANOMALY_FACTOR = 10.0
"""Times the running median from which a loss or gradient norm stands out."""
GLANCE_SHARE = 0.2
"""Share of the budget that goes to glances: gradient norm, learning rate and step time of one step."""
LEAST_SHARE = 0.25
"""Share of the budget that samples get even where the watch of every step uses it up."""
HISTOGRAM_EVERY = 4
"""Samples for each one with histograms; the first has them, and with a fixed interval all."""
LONGEST_WAIT = 2.0
"""Seconds between two glances at most, so that a change of the step time is noticed, as far as the budget bears it."""
_MEMORY = 0.2
"""Weight of the newest measurement in the running means."""
_NEVER = 10**9
_MAX_SAVED = 12.0
"""Samples that may be saved up: what an anomaly burst spends."""


class Pace:
    """Saves the budgeted share of each step's time and plans samples and glances with it.

    Nothing is measured in the steps between: the time of all of them is known at the next planned step. The
    first samples come on credit, which half of the savings pay back, so that the budget holds over a run.
    That of a training of a few seconds is over before it is paid back.
    `interval` samples every k-th step instead; glances stay within the budget.
    """

    def __init__(self, overhead: float = 0.01, interval: int | None = None) -> None:
        """`overhead`: share of the training's own time that monitoring may take, 0 to 1."""
        self._overhead = overhead
        self._interval = interval
        self._step_time = math.inf
        self._sample_cost = 0.0
        self._glance_cost = 0.0
        self._saved = 0.0
        self._debt = self._taken = 0.0
        self._on_credit = True
        self._burst = 0
        self._next_sample = self._next_glance = 0
        self._start: int | None = None
        self._norms: deque[float] = deque(maxlen=100)
        self._nonfinite = False
        self._last_sample = 0
        self._odd = False
        """Whether the next sample is one of an odd step, unless it follows at once: odd and even ones in turn, as two
        tasks may take turns, and distances that double would meet the steps of one of them only."""

    def resume(self, asked: "Pace", step: int) -> None:
        """Go on at `step` with another budget or interval; what is known of costs is kept."""
        self._overhead, self._interval = asked._overhead, asked._interval
        self._next_glance = min(self._next_glance, step)
        if self._interval is not None:
            self._next_sample = -(-step // self._interval) * self._interval

    @property
    def is_fixed(self) -> bool:
        """Whether an interval is given."""
        return self._interval is not None

    @property
    def next_step(self) -> int:
        """The next step that is looked at in any way."""
        return min(self._next_sample, self._next_glance)

    def is_sample(self, step: int) -> bool:
        """Whether the statistics of all layers are taken in this step."""
        return step >= self._next_sample

    def spent(
        self, step: int, steps: int, training: float, always: float, cost: float, sampled: bool
    ) -> None:
        """Account for a step that was looked at, and plan the next ones.

        steps: how many have passed since the last such step, this one included.
        training: what they took without us; always: what the watch of every step took in them; cost: what the
        look at this step took; all in seconds.
        """
        if self._start is None:
            self._start = step
        own = training / max(steps, 1)
        # Steps that wait for other processes, and the first ones, are not what the next ones will take.
        self._step_time = min(own, _mix(self._step_time, own)) if own else self._step_time
        self._learn_cost(cost, sampled)
        self.earn(training, always)
        self._pay(cost, sampled)
        watch = max(always, 0.0) / training if training else self._overhead
        rate = max(self._overhead - watch, LEAST_SHARE * self._overhead)
        self._plan(step, sampled, rate)

    def _learn_cost(self, cost: float, sampled: bool) -> None:
        if sampled:
            self._sample_cost = _mix(self._sample_cost or cost, cost)
        else:
            self._glance_cost = _mix(self._glance_cost or cost, cost)

    def passed(self, step: int, training: float, always: float) -> None:
        """A step was looked at beside this plan, and at nobody's expense: a glance at it is not missed."""
        self.earn(training, always)
        self._next_glance = max(self._next_glance, step + 1)

    def earn(self, training: float, always: float) -> None:
        """Save the share of what some steps took without us; `always` is what the watch of every step took."""
        budget = self._overhead * training
        income = max(budget - max(always, 0.0), LEAST_SHARE * budget)  # what it saves is not spent
        if self._debt > 0:
            paid = min(income / 2, self._debt)
            self._debt -= paid
            income -= paid
        self._saved = min(self._saved + income, _MAX_SAVED * self._sample_cost)

    def _pay(self, cost: float, sampled: bool) -> None:
        if sampled and self._on_credit:
            self._debt += cost
            self._taken += cost
        else:
            self._saved -= cost

    def _plan(self, step: int, sampled: bool, rate: float) -> None:
        """`rate`: share of the training's time that samples and glances may take from now on."""
        own = self._step_time
        if self._interval is not None:
            self._next_sample = step - step % self._interval + self._interval
        else:
            if sampled:
                self._last_sample, self._odd = step, not self._odd
            due = step + self._wait_for_sample(step, rate)
            self._next_sample = due + (due > self._last_sample + 1 and due % 2 != self._odd)
        wait = math.ceil(self._glance_cost / (GLANCE_SHARE * rate * own)) if own else 1
        longest = max(1, int(LONGEST_WAIT / own)) if 0 < own < math.inf else 1
        bearable = math.ceil(GLANCE_SHARE * wait)  # then glances alone take all of it
        self._next_glance = step + min(max(wait, 1), max(longest, bearable))

    def _wait_for_sample(self, step: int, rate: float) -> int:
        cost = self._sample_cost
        if self._burst > 0 and self._saved > -_MAX_SAVED * cost:
            self._burst -= 1
            self._on_credit = False
            return 1
        on_credit, saved = self._wait_on_credit(step), self._wait_for_savings(rate)
        self._on_credit = on_credit < saved
        return min(on_credit, saved)

    def _wait_on_credit(self, step: int) -> int:
        credit = self._overhead * max(CREDIT_STEPS * self._step_time, CREDIT_SECONDS)
        if self._start is None or self._taken + self._sample_cost > credit:
            return _NEVER
        since = step - self._start
        close = since + 1 < BURST and self._taken + self._sample_cost <= credit / 2
        return 1 if close else max(1, int(SPREAD * since))

    def _wait_for_savings(self, rate: float) -> int:
        income = rate * (1 - GLANCE_SHARE) * (0.5 if self._debt > 0 else 1.0) * self._step_time
        # Half of a sample's cost is enough to begin with; the rest follows, and the waits come out even.
        missing = 0.5 * self._sample_cost - self._saved
        if missing <= 0:
            return 1
        return min(math.ceil(missing / income), _NEVER) if income > 0 else _NEVER

    def stands_out(self, value: float) -> bool:
        """Whether a gradient norm is non-finite or far above the running median."""
        if not math.isfinite(value):
            return True
        if len(self._norms) < 10 or value <= ANOMALY_FACTOR * min(self._norms):
            return False  # nearly always, and sooner known than the median
        return value > ANOMALY_FACTOR * median(self._norms)

    def saw_norm(self, norm: float) -> None:
        """Note the gradient norm of a step that is looked at; one that stands out starts a burst."""
        if self.stands_out(norm):
            self.anomaly(math.isfinite(norm))
        self._nonfinite = not math.isfinite(norm)
        if not self._nonfinite:
            self._norms.append(norm)

    def anomaly(self, finite: bool = True) -> None:
        """Something stands out: sample the next steps, or glance at this one where the interval is fixed.

        Of non-finite values only the first is worth it.
        """
        if not finite and self._nonfinite:
            return
        if self._interval is not None:
            self._next_glance = 0
        elif self._saved > -_MAX_SAVED * self._sample_cost:
            self._burst = ANOMALY_BURST
            self._next_sample = 0


def _mix(old: float, new: float) -> float:
    return new if old == math.inf else old + _MEMORY * (new - old)
