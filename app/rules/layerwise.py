"""What rules share that judge every layer, or every parameter, by itself."""

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, Floats, Mask, Table
from trainvitals.app.rules.finding import RuleState
from trainvitals.app.rules.statistics import Curve, Persistence, Span


class Watched(msgspec.Struct):
    """One row for which the condition has held at least once."""

    order: int
    """Place in forward order."""
    layer: str
    held: Persistence = msgspec.field(default_factory=Persistence)
    worst: float = 0.0
    """The largest value while the condition held."""
    curve: Curve = msgspec.field(default_factory=Curve)


class LayerRule(Rule):
    """Remembers the rows that were ever over the limit, and no others."""

    watched: dict[str, Watched] = msgspec.field(default_factory=dict)
    samples: int = 0
    judged: int = 0
    """Rows that the last sample could tell something of."""

    def _take(
        self, step: int, table: Table, values: Floats, over: Mask, calm: Mask, *, k: int, n: int
    ) -> None:
        """Take a sample: `values`, whether each is over its limit or well below it, by row."""
        known = np.isfinite(values)
        if not known.any():
            return
        self.samples += 1
        self.judged = int(np.count_nonzero(known))
        rows = table.group.rows
        for index in np.flatnonzero(over):
            name = rows[index].name
            if name not in self.watched:
                self.watched[name] = Watched(int(index), rows[index].layer)
        if not self.watched:
            return
        for index in np.flatnonzero(known):
            row = self.watched.get(rows[index].name)
            if row is None:
                continue
            value, wrong = float(values[index]), bool(over[index])
            row.curve.add(step, value)
            row.held.update(step, wrong, calm=bool(calm[index]), k=k, n=n)
            if wrong:
                row.worst = max(row.worst, value)

    @property
    def _open(self) -> dict[str, Watched]:
        return {
            n: row for n, row in self.watched.items() if row.held.fired and not row.held.resolved
        }

    def _shown(self) -> list[tuple[str, Watched]]:
        """The rows a finding speaks of, earliest first: the open ones, or all that ever fired."""
        shown = self._open or {n: row for n, row in self.watched.items() if row.held.fired}
        return sorted(shown.items(), key=lambda entry: (entry[1].held.onset, entry[1].order))

    def _span(self, shown: list[tuple[str, Watched]]) -> Span:
        """When any of the rows was over its limit."""
        held = [row.held for _, row in shown]
        first, last = min(one.onset for one in held), max(one.last for one in held)
        return Span(first, last, not self._open)

    def _without_finding(self, context: Context) -> RuleState:
        if not self.samples:
            return self._state("not applicable", f"No {self.subject} was seen.")
        return self._state("ok", f"{self.judged} judged in {self.samples} samples.")

    @property
    def subject(self) -> str:
        """What the rule is about, as the reason of "not applicable"."""
        return "layer of this kind"


def layers_of(shown: list[tuple[str, Watched]]) -> list[str]:
    """The layers of rows, each once."""
    return list(dict.fromkeys(row.layer for _, row in shown))
