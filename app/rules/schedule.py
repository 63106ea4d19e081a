"""A learning rate that its schedule has used up while the training still goes on."""

from typing import ClassVar, Final

from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.observed import ObservedRule, Sight

NOTHING: Final = 1e-4
"""Share of the highest rate below which a schedule has ended."""
STEPS: Final = 50
TAIL: Final = 0.1
"""Share of all steps so far that the end of a healthy schedule stays below: a cosine ends with 0.6 %, a square with 1
%."""


class LrScheduleMismatch(ObservedRule):
    """The schedule is over long before the training is: the rate is 0, or next to it, and steps go on.

    Formula: every learning rate at or below 1e-4 of the highest so far, for 50 steps and a tenth of the steps so far;
    or 0 from the first step on, for 50 steps. Default: see `TAIL`. A scheduler that counts epochs and is stepped with
    every batch does it within the first epoch. Applies to: runs whose rates are recorded. Guards: several groups of
    which one still has a rate; a cycle that comes back resolves it. Guide tips: 8, 9. Sources: PyTorch's documentation
    of schedulers; practice.
    """

    id: ClassVar[str] = "lr-schedule-mismatch"
    k: ClassVar[int] = 1
    n: ClassVar[int] = 1
    expected: ClassVar[str] = "A learning rate above 0 until the last steps"
    remedy: ClassVar[str] = (
        "Count steps or epochs, not both: scheduler.step() once for each unit that its length was given in. Give it "
        "the whole length of the training."
    )
    diff: ClassVar[str] = (
        "  for x, y in loader:\n-     scheduler.step()\n+ scheduler.step()  # once an epoch"
    )
    about: ClassVar[str] = "No learning rate was recorded yet."

    since: int = -1

    def on_step(self, context: Context, view: StepView) -> None:
        rates = [value for name, value in view.scalars.items() if name.startswith("tv/lr/")]
        if not rates:
            return
        if max(rates) > NOTHING * context.rate_top:
            self.since = -1
            self._hold(view.step, None)
            return
        self.since = view.step if self.since < 0 else self.since
        length = view.step - self.since
        if length < max(STEPS, TAIL * context.steps):
            return
        fired = self.held.fired
        top = context.rate_top
        self._hold(
            view.step,
            Sight(
                f"The learning rate is {max(rates):.2g} while the training goes on",
                f"{max(rates):.3g} for {length} steps; the highest was {top:.3g}",
                "warning",
            ),
        )
        if not fired:
            self.held.onset = self.since
