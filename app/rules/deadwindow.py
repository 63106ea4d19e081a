"""Since when the units were silent that are counted as dead.

The count is of units that were not active in the generation of samples under way nor in the one before. Of two full
generations the older is dropped, which shows as fewer positions behind the count. Units that are dead from that
sample on were active in the generation dropped and never since: they fell silent after the first sample of what was
dropped, and at the latest at the first sample of what was kept.
"""

import msgspec
import numpy as np

from trainvitals.app.rules.context import Table
from trainvitals.app.rules.statistics import Persistence


class Window(msgspec.Struct):
    """The samples behind the count of one layer."""

    dropped: int = -1
    """First sample of the generation that was dropped last."""
    begin: int = -1
    """First sample that counts."""
    under_way: int = -1
    """First sample of the generation under way, once there was an older one to drop."""
    positions: float = 0.0

    def take(self, step: int, positions: float) -> None:
        """Take the next sample, and the positions behind its count."""
        if self.begin < 0:
            self.begin = step
        elif positions <= self.positions:
            if self.under_way < 0:
                # Where the first two met does not show, but they are of one length.
                self.under_way = (self.begin + step) // 2
            self.dropped, self.begin, self.under_way = self.begin, self.under_way, step
        self.positions = positions


class Windows(msgspec.Struct):
    """Those of all layers that have such a count, and what they say of a condition on it."""

    attempt: str = ""
    layers: dict[str, Window] = msgspec.field(default_factory=dict)
    behind: dict[str, Window] = msgspec.field(default_factory=dict)
    """Of layers for which the condition holds and is not sure yet: the window when it began to."""

    def take(self, attempt: str, step: int, table: Table) -> None:
        """Take a sample; each attempt counts anew."""
        if attempt != self.attempt:
            self.attempt, self.layers = attempt, {}
        positions = table.column("dead_positions")
        for index in np.flatnonzero(np.isfinite(table.column("dead_fraction"))):
            window = self.layers.setdefault(table.group.rows[index].name, Window())
            window.take(step, float(positions[index]))

    def date(self, name: str, held: Persistence) -> None:
        """Let a condition on the dead share begin where the units fell silent; it was not sure before this sample."""
        if not held.over:
            self.behind.pop(name, None)
            return
        if name not in self.behind:
            self.behind[name] = msgspec.structs.replace(self.layers[name])
        window = self.behind[name]
        if held.fired:
            held.clear, held.onset = window.dropped, min(window.begin, held.onset)
            del self.behind[name]
