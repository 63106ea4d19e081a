"""dead-units-growing: units of ReLU-like layers that die while the training goes on."""

from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.activations import BATCHES
from trainvitals.app.rules.base import listing
from trainvitals.app.rules.context import Context, StepView, Table
from trainvitals.app.rules.deadwindow import Windows
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.layerwise import LayerRule, layers_of
from trainvitals.app.rules.statistics import number
from trainvitals.app.rules.thresholds import Count, Share

POSITIONS: Final = 1_000
"""Behind a share, at least: the noise of fewer is up to a tenth of the units."""
STRETCH: Final = 0.05
"""Of the steps so far: growth is measured from the lowest share of the last one to two stretches, which is a tenth of
the training at most, whatever its plan."""


class DeadUnitsGrowing(LayerRule):
    """The trend is the fault: a net may have silent units from its start and be well."""

    id: ClassVar[str] = "dead-units-growing"
    grown: ClassVar[Share] = 0.1
    """Of a layer's units that have died within a tenth of the training. Whatever share was silent before does not
    count: healthy layers begin with up to 13 % on small batches, those of language models with 70 %."""
    after: ClassVar[Count] = 100
    """Steps after the warm-up before which units may come and go: the first steps sort out who is needed."""
    many: ClassVar[Share] = 0.3
    """Dead units from which the growth is a warning, as with `dead-relu-units`: in small healthy networks a fifth of a
    layer may die as they learn, and they learn on."""
    least: ClassVar[Count] = 200
    """Steps that growth is measured over at least, in the beginning of a training."""

    windows: Windows = msgspec.field(default_factory=Windows)
    seen: int = 0
    """Samples, those before the start of the judgement among them."""
    before: dict[str, float] = msgspec.field(default_factory=dict)
    """Lowest share of each layer in the stretch before, and in the one under way."""
    now: dict[str, float] = msgspec.field(default_factory=dict)
    since: int = -1
    """First step of the stretch under way."""
    shares: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    """Of layers over the limit: the share from which the growth was measured, and what it grew to."""

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.activations:
            if np.isfinite(table.column("dead_fraction")).any():
                self.seen += 1
                self.windows.take(context.attempt, view.step, table)
                self._sample(context, view.step, table)

    def _sample(self, context: Context, step: int, table: Table) -> None:
        if self.seen < BATCHES or step < context.warm_up_end + self.after:
            return
        dead = table.column("dead_fraction")
        known = np.isfinite(dead) & (table.column("dead_positions") >= POSITIONS)
        if step - self.since >= max(self.least / 2, STRETCH * context.steps):
            self.since, self.before, self.now = step, self.now, {}
        growth = np.full(len(dead), np.nan)
        for index in np.flatnonzero(known):
            name, share = table.group.rows[index].name, float(dead[index])
            self.now[name] = min(share, self.now.get(name, 1.0))
            low = min(self.now[name], self.before.get(name, 1.0))
            growth[index] = share - low
            if growth[index] >= self.grown:
                start, top = self.shares.get(name, (low, share))
                self.shares[name] = min(start, low), max(top, share)
        over, calm = growth >= self.grown, growth < self.grown / 2
        before = {name for name, row in self.watched.items() if row.held.fired}
        self._take(step, table, growth, over, calm, k=3, n=5)
        for name, row in self.watched.items():
            if name not in before:
                self.windows.date(name, row.held)

    def findings(self, context: Context) -> list[Finding]:
        shown = self._shown()
        if not shown:
            return []
        name, row = shown[0]
        start, top = self.shares[name]
        most = max(self.shares[name][1] for name, _ in shown)
        layers = layers_of(shown)
        span = self._span(shown)
        return [
            self._report(
                severity="warning" if most >= self.many else "info",
                during=span,
                layers=layers,
                title=f"{name}: its dead units have grown from {100 * start:.3g} % to {100 * top:.3g} %, since step "
                f"{span.first}" + (f", and in {len(layers) - 1} more layers" if layers[1:] else ""),
                seen=f"{listing(layers)}: {100 * (top - start):.3g} points more within a tenth of the training",
                expected=f"A share that grows by less than {100 * self.grown:g} points",
                remedy="Lower the learning rate, or warm it up: too large steps push units below zero for every input, "
                "and they get no gradient to come back. Else LeakyReLU or GELU, a norm layer before the activation, "
                "and no penalty on activations.",
                growth=number(row.worst),
                clear=row.held.clear if row.held.clear >= 0 else span.first,
                shares={n: number(self.shares[n][1]) for n, _ in shown[:50]},
                curve=row.curve.evidence(f"Growth of the dead share of {name}", None, self.grown),
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if not self.seen:
            return self._state("not applicable", "No layer with a flat zero side was seen.")
        if not self.samples:
            return self._state(
                "not enough data",
                f"Judged {self.after} steps after the warm-up, from {BATCHES} batches and {POSITIONS:,} samples on.",
            )
        return self._state("ok", f"{self.judged} layers judged, in none do units die.")
