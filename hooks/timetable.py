"""What is done at which step: samples and glances as the budget allows, looks at the loop on a plan of their own."""

from collections.abc import Callable
from typing import NamedTuple

from trainvitals.hooks.accounts import Span
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.observe.looks import Looks
from trainvitals.hooks.pace import HISTOGRAM_EVERY, Pace
from trainvitals.hooks.registry import FOLLOW_EVERY
from trainvitals.hooks.wake import Wake


class Kind(NamedTuple):
    """What is done in a step that is looked at."""

    sampled: bool
    """The statistics of all layers are taken; else it is a glance."""
    observed: bool
    """The loop itself is looked at."""


class Timetable:
    """Which steps are looked at, and how closely."""

    def __init__(self, pace: Pace, looks: Looks, clock: Callable[[], float]) -> None:
        """`clock`: that of `Wake`."""
        self.pace = pace
        self._looks = looks
        self.wake = Wake(clock)
        """What looks cost beside our own work on them."""
        self.samples = 0
        """Samples taken so far."""

    def resume(self, asked: Pace, step: int) -> None:
        """Go on at `step`, perhaps after a pause, with another budget or interval."""
        self.pace.resume(asked, step)
        self.wake.abandon()

    def resume_at(self, step: int) -> None:
        """Count on from `step`, before the first one."""
        self.pace.resume(self.pace, step)
        self._looks.resume(step)

    @property
    def next_step(self) -> int:
        """The next step at which there is more to do than in most."""
        return min(self.pace.next_step, self._looks.next_step)

    def next_pass(self, completed: int, calm: bool) -> int:
        """The next step that the flat functions may not pass alone, as `completed` begins: one with more to do, or one
        at whose begin a clock is read. `calm`: nothing else is the matter."""
        planned = self.next_step
        if not calm:
            self.wake.abandon()
        return min(planned, self.wake.next_reading(completed, planned))

    def kind(self, step: int) -> Kind:
        """How `step`, which is looked at, is so."""
        sampled = self.pace.is_sample(step)
        is_look = sampled and (not self.pace.is_fixed or self._looks.is_worth(step))
        return Kind(sampled, is_look or step >= self._looks.next_step)

    @property
    def with_histograms(self) -> bool:
        """Whether the next sample has histograms."""
        return self.pace.is_fixed or self.samples % HISTOGRAM_EVERY == 0

    @property
    def follows_models(self) -> bool:
        """Whether it is time to see what has changed of the models."""
        return self.samples < 2 or self.samples % FOLLOW_EVERY == 0

    def interrupted(self, step: int) -> None:
        """The model is evaluated before the end of `step`."""
        self.wake.abandon()
        self._looks.interrupted(step)

    def looked(self, draft: Draft, span: Span) -> None:
        """A step was looked at; `span` is what passed since the last one. Plans the next ones."""
        self.wake.looked(draft.sampled)
        if draft.observed is not None:
            self._looks.looked(draft.step)
        if draft.observed is not None and not draft.sampled:
            self.pace.passed(draft.step, span.training, span.always)
        else:
            self.pace.spent(
                draft.step, span.steps, span.training, span.always, span.own, draft.sampled
            )
