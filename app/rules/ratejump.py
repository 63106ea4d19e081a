"""A jump of the learning rate after which the training blows up: seen without a single sample."""

import math
from typing import Final

import msgspec

from trainvitals.app.rules.context import Context, StepView

JUMP: Final = 5.0
"""Times by which one step must raise the rate over all rates before. Warm-ups rise in small steps, and
a warm restart does not rise over the rate it began with."""
AFTERMATH: Final = 50
"""Steps in which the loss must answer."""
TRIPLED: Final = 3.0
GIVEN_BACK: Final = 0.25
"""Share of the loss's fall that must be lost again: tripling 0.003 is nothing."""
SURE: Final = 3
"""Answers that confirm it; a NaN counts for two."""


class RateJump(msgspec.Struct):
    """Watches for the first jump that the loss answers within `AFTERMATH` steps."""

    step: int = -1
    before: float = math.nan
    after: float = math.nan
    loss: float = math.nan
    """Smoothed loss at the jump."""
    answers: int = 0

    @property
    def confirmed(self) -> bool:
        """Whether the training blew up after the jump."""
        return self.answers >= SURE

    def update(self, context: Context, view: StepView) -> None:
        """Take a step record."""
        if self.confirmed:
            return
        jumped = context.rate_top_step == view.step and view.step != self.step
        # Between records far apart a rise may as well have been that of a warm-up.
        jumped = jumped and context.rate_gap <= AFTERMATH
        if jumped and context.rate_top >= JUMP * context.rate_before > 0:
            self.step, self.before, self.after = view.step, context.rate_before, context.rate_top
            self.loss, self.answers = context.loss.fast, 0
        elif 0 <= self.step < view.step <= self.step + AFTERMATH:
            self.answers += self._answer(context, view)

    def _answer(self, context: Context, view: StepView) -> int:
        seen = [v for v in (view.loss, view.scalars.get("tv/grad_norm")) if v is not None]
        if not all(map(math.isfinite, seen)):
            return 2
        rose = view.loss is not None and view.loss > TRIPLED * self.loss > 0
        return int(rose and context.loss.regained > GIVEN_BACK)
