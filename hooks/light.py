"""What a rank does whose statistics another one records: all that the guard needs, and what ranks are compared by."""

from trainvitals.hooks.draft import Draft, Emitter
from trainvitals.hooks.pace import Pace
from trainvitals.hooks.wire.observed import Observed

_LONGEST = 1_000


class Brief(Emitter):
    """Sends of a draft what the ranks are compared by."""

    def emit(self, draft: Draft) -> None:
        """All else rank 0 has said already."""
        if draft.observed is not None:
            brief = Draft(draft.step)
            brief.observed = draft.observed
            super().emit(brief)

    def _send(self, draft: Draft) -> None:
        seen = draft.observed.finish() if draft.observed is not None else None
        if seen is not None and seen.peer is not None:
            self._recorder.step(step=draft.step, observed=Observed(peer=seen.peer))


class Seldom(Pace):
    """Looks at steps 0, 1, 10, 100 and every 1,000th: often enough to know the order of the layers and to
    follow changes of the model. Plans by the step alone, so that it costs the other ranks no waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0

    def resume(self, asked: Pace, step: int) -> None:
        """Look at the step at which watching goes on."""
        self._next = step

    @property
    def is_fixed(self) -> bool:
        """Whether an interval is given."""
        return False

    @property
    def next_step(self) -> int:
        """The next step that is looked at."""
        return self._next

    def is_sample(self, step: int) -> bool:
        """Whether the layers are looked at in this step."""
        return step >= self._next

    def spent(
        self, step: int, steps: int, training: float, always: float, cost: float, sampled: bool
    ) -> None:
        """Plan the next step, whatever this one has cost."""
        following = 1
        while following <= step and following < _LONGEST:
            following *= 10
        self._next = following if following > step else step - step % _LONGEST + _LONGEST

    def anomaly(self, finite: bool = True) -> None:
        """Rank 0 looks closer, this one does not."""
