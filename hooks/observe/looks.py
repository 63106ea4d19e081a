"""At which steps the loop itself is looked at: a plan of its own, as what is wired wrong must not wait for a budget.

Such a look is as dear as a glance and a batch's checksum, some tenths of a millisecond, and there are few: 10 at the
start and 4 more each time the run has grown by e, about 50 in 100,000 steps. The budget does not pay for them: samples
would become so few in short trainings that a third of what goes wrong later in them would not be seen.
"""

from trainvitals.hooks.observe.peers import next_agreed

DENSE = 10
"""First steps, one after the other: what a loop does in each of its steps shows in them."""
SPREAD = 0.25
"""Distance of two later looks, as a share of the steps since the start."""
BESIDE_SAMPLES = 0.05
"""The same where a fixed interval asks for more samples than a look at the loop is worth taking."""
_NEVER = 10**9


class Looks:
    """The next step that is looked at, by the number of steps so far alone."""

    def __init__(self) -> None:
        self._begin = 0
        self._last = -1
        self.next_step = 0
        """The next step to be looked at."""

    def resume(self, step: int) -> None:
        """Begin anew at `step`."""
        self._begin, self._last, self.next_step = step, step - 1, step

    def looked(self, step: int) -> None:
        """A step was looked at, planned or not: plan the next one."""
        since = step - self._begin
        self._last = step
        self.next_step = step + (1 if since + 1 < DENSE else max(1, int(SPREAD * since)))

    def is_worth(self, step: int) -> bool:
        """Whether a sample at `step` may show in the loop what the last look did not."""
        return step - self._last >= BESIDE_SAMPLES * (step - self._begin)

    def interrupted(self, step: int) -> None:
        """Before the end of `step` the model was evaluated: the next step shows in what state it was left.

        A loop that evaluates at every step is not looked at more than twice as often for it.
        """
        if step + 1 - self._last > SPREAD / 2 * (step - self._begin):
            self.next_step = min(self.next_step, step + 1)


class NoLooks(Looks):
    """Where another rank records, or all ranks have to look together: only what they plan is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.next_step = _NEVER

    def resume(self, step: int) -> None:
        """Nothing is planned."""

    def looked(self, step: int) -> None:
        """Nothing is planned."""

    def interrupted(self, step: int) -> None:
        """Nothing is planned."""


class LooksWithPeers(Looks):
    """Where other ranks train, too: besides, the steps of which all of them tell."""

    def looked(self, step: int) -> None:
        """A step was looked at, planned or not: plan the next one."""
        super().looked(step)
        self.next_step = min(self.next_step, next_agreed(step + 1))


class OnlyWithPeers(NoLooks):
    """Where another rank records: the steps of which all ranks tell."""

    def resume(self, step: int) -> None:
        """Begin anew at `step`."""
        self.next_step = next_agreed(step)

    def looked(self, step: int) -> None:
        """A step was looked at, planned or not: plan the next one."""
        self.next_step = next_agreed(step + 1)


def looks_of(light: bool, sharded: bool, has_peers: bool) -> Looks:
    """The plan of a rank. `light`: another one records; `sharded`: all have to look together; `has_peers`: there are
    other ranks."""
    if sharded:
        return NoLooks()
    if light:
        return OnlyWithPeers()
    return LooksWithPeers() if has_peers else Looks()
