"""What monitoring costs: measured at the steps that are looked at, reckoned for those between."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, thread_time
from typing import Any, NamedTuple

from trainvitals.hooks.problems import Problems


class QuietCost(NamedTuple):
    """What the watch takes of a step that nobody looks at, in seconds, with cold caches."""

    call: float
    """For each call of a module that is noted."""
    saved: float
    """What each layer in a noted row saves, as nothing but the layer is called."""
    rest: float
    """Round backward and the optimizers' steps."""


class Span:
    """From the end of one step that was looked at to the end of the next one."""

    def __init__(
        self, steps: int, wall: float, processor: float, own: float, always: float
    ) -> None:
        self.steps = steps
        """Steps in it."""
        self.wall = wall
        """Seconds that passed."""
        self.own = own
        """Seconds of it for looking at its last step, with what that costs beside our own work."""
        self.always = always
        """Seconds for what every step costs: the watch, and our other threads; negative where it saves more."""
        self.training = max(processor - own - always, 0.0)
        """Processor time of the training's thread without us."""


class Accounts:
    """Clocks of a watched training.

    A busy machine interrupts a step by others, whose time is neither our cost nor the training's: both are
    measured in processor time of the training's thread. Shares of the step time are told in real time.
    """

    def __init__(self, background: Callable[[], float]) -> None:
        """`background`: processor seconds so far of our own threads."""
        self._background = background
        self._background_before = 0.0
        self._wall = self._processor = 0.0
        self._own_total = self._wall_total = 0.0
        self._own = self._entered = 0.0
        """Our own work in the span under way, and when the last of it began."""
        self._left_out = 0.0
        """All of our own work so far, and pauses."""
        self.begin = 0
        """Index of the first step of the span under way."""
        self.quiet_cost: QuietCost | None = None
        """Learnt by `calibration`, and the rest of it by `Rehearsal` as soon as there are looks."""
        self.aside = 0.0
        """Seconds spent for the user's calls of `log` and `batch`: told, but not taken from the budget."""

    def know_rest(self, seconds: float) -> None:
        """What a quiet step takes round backward and the optimizer's step, as it was found in the training."""
        cost = self.quiet_cost or QuietCost(0.0, 0.0, 0.0)
        self.quiet_cost = cost._replace(rest=seconds)

    def start(self, step: int) -> None:
        """Time counts from now on, as the step of this index begins."""
        self.begin = step
        self._background_before = self._background()
        self._wall, self._processor = perf_counter(), thread_time()
        self._own = self.aside = 0.0

    def enter(self) -> None:
        """What follows in this thread, up to `leave`, is our own work on the step that is looked at."""
        self._entered = thread_time()

    def leave(self) -> None:
        """The end of our own work, for now."""
        took = thread_time() - self._entered
        self._own += took
        self._left_out += took

    def without_looks(self) -> float:
        """Processor seconds of this thread, but for our own work on steps that are looked at, and for pauses."""
        return thread_time() - self._left_out

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens inside takes no time: of the training, of our own, or of our other threads."""
        wall, processor, background = perf_counter(), thread_time(), self._background()
        aside = self.aside
        try:
            yield
        finally:
            took = thread_time() - processor
            self._left_out += took
            self._processor += took
            self._wall += perf_counter() - wall
            self._background_before += self._background() - background
            self.aside = aside

    def close(self, end: int, calls: int, in_rows: int, beside: float = 0.0) -> Span:
        """End the span before the step of index `end`; so many calls of modules are noted in each of its steps, and so
        many more are made inside noted rows. `beside`: seconds that the look at its last step costs beside our own
        work on it, as `Wake` knows them.

        Called between `enter` and `leave`: what follows there is booked with the next span.
        """
        wall, processor = perf_counter(), thread_time()
        took = processor - self._entered
        self._own += took
        self._left_out += took
        self._entered = processor
        background = self._background()
        steps, self.begin = end - self.begin, end
        cost = self.quiet_cost or QuietCost(0.0, 0.0, 0.0)
        each = calls * cost.call + cost.rest - in_rows * cost.saved
        always = each * steps + max(background - self._background_before, 0.0)
        own = self._own + beside
        span = Span(steps, wall - self._wall, processor - self._processor, own, always)
        self._own_total += span.own + span.always + self.aside
        self._wall_total += span.wall
        self._wall, self._processor, self._background_before = wall, processor, background
        self._own = self.aside = 0.0
        return span

    @property
    def share(self) -> float:
        """What monitoring has added to the training's own time so far, at most 1; negative where it saves more."""
        own = min(self._own_total, self._wall_total)
        rest = self._wall_total - own
        return min(own / rest, 1.0) if rest > 0 else 0.0


class OwnWork:
    """Round our own work on the step that is looked at, which no error of it disturbs."""

    def __init__(self, what: str, accounts: Accounts, problems: Problems) -> None:
        self._what = what
        self._accounts = accounts
        self._problems = problems

    def __enter__(self) -> None:
        self._accounts.enter()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self._accounts.leave()
        if not isinstance(error, Exception):
            return False
        self._problems.caught(self._what, error)
        return True
