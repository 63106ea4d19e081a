"""dead-relu-units: units of ReLU-like layers that no input activates any more."""

from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView, Table
from trainvitals.app.rules.deadwindow import Windows
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Curve, Persistence, Span
from trainvitals.app.rules.thresholds import Share

POSITIONS: Final = 2_000
"""Behind a judgement of fewer dead units. A healthy net's fourth layer has 1.2 % silent on 256 samples."""
BATCHES: Final = 20
OBVIOUS: Final = ((0.6, 250, 6), (0.3, 500, 10))
"""Shares of dead units that show with fewer samples, positions and batches: a short training at the usual overhead
has about ten. A healthy layer has 13 % silent on a batch of 8 and 4 % on 256 samples."""
CONSTANT: Final = 1e-3
"""Variation between samples below which a unit is on or off by its bias alone: whether other samples would activate it
does not show. Where some units are dead, the others vary as usual."""
GIVEN_BACK: Final = 0.25
"""Share of its fall that the loss has lost again."""
IN_A_ROW: Final = 3


class Unit(msgspec.Struct):
    """What is known of one layer's dead units."""

    order: int
    """Place in forward order."""
    feeds: str = ""
    """The layer whose output it takes, as far as the order tells."""
    held: Persistence = msgspec.field(default_factory=Persistence)
    silent_since: int = -1
    """First of the samples in a row in which at least 90 % of the values were zero."""
    samples: int = 0
    first: float = -1.0
    """Share at the first sample with enough positions."""
    share: float = 0.0
    """The largest share of dead units while the condition held."""
    curve: Curve = msgspec.field(default_factory=Curve)


class DeadReluUnits(Rule):
    """Zero values are normal behind a ReLU, also 97 % of them; units that are never active are not."""

    id: ClassVar[str] = "dead-relu-units"
    note: ClassVar[Share] = 0.1
    """A healthy He net has 1 to 4 % silent units on 256 samples; a tenth over 2,000 is worth a note."""
    warn: ClassVar[Share] = 0.3
    """With a third of its units dead a layer has lost what its width is for."""
    dead: ClassVar[Share] = 0.9
    """The layer is as good as dead: hardly any gradient passes it."""

    units: dict[str, Unit] = msgspec.field(default_factory=dict)
    """Layers with at least a tenth of dead units, or silent."""
    samples: int = 0
    windows: Windows = msgspec.field(default_factory=Windows)
    relu_layers: int = 0

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.activations:
            self._sample(context, view.step, table)

    def _sample(self, context: Context, step: int, table: Table) -> None:
        dead = table.column("dead_fraction")
        dead[table.column("batch_variation") < CONSTANT] = 0.0
        positions = table.column("dead_positions")
        zeros = table.column("zero_fraction")
        relu = np.isfinite(dead)
        if not relu.any():
            return
        self.samples += 1
        self.windows.take(context.attempt, step, table)
        self.relu_layers = int(np.count_nonzero(relu))
        for index in np.flatnonzero(relu):
            name = table.group.rows[index].name
            unit = self.units.get(name)
            if unit is None:
                if (
                    dead[index] < self.note and zeros[index] < self.dead
                ):  # active units are then many
                    continue
                feeds = table.group.rows[index - 1].name if index else ""
                unit = self.units[name] = Unit(order=int(index), feeds=feeds)
                if self.samples > BATCHES:
                    unit.first = 0.0  # under a tenth until now
            self._judge(
                context, step, name, float(dead[index]), positions[index], float(zeros[index])
            )

    def _judge(
        self, context: Context, step: int, name: str, dead: float, positions: float, zeros: float
    ) -> None:
        unit = self.units[name]
        unit.samples += 1
        unit.curve.add(step, dead)
        if zeros < self.dead:
            unit.silent_since = -1
        elif unit.silent_since < 0:
            unit.silent_since = step
        enough = positions >= POSITIONS and self.samples >= BATCHES
        few = any(
            dead > share and positions >= least and self.samples >= batches
            for share, least, batches in OBVIOUS
        )
        silent = zeros == 1.0
        if enough and unit.first < 0:
            unit.first = dead
        over = silent or few or (enough and dead > self.note)
        known = silent or zeros < 1.0
        # Samples may be far apart. A whole layer silent and the loss gone up at the same time are
        # two signs that need no third.
        sure = bool(silent) and context.loss.regained > GIVEN_BACK
        calm = bool(known and dead < self.note / 2 and not silent)
        fired = unit.held.fired
        unit.held.update(step, bool(over), calm=calm, k=IN_A_ROW, n=IN_A_ROW, sure=sure)
        if not fired and not silent:
            self.windows.date(name, unit.held)
        if over:
            unit.share = max(unit.share, 1.0 if silent else dead)
        if unit.held.fired and dead >= self.dead:
            # Where next to nothing is left active, the zeros tell at which sample of the window it fell silent.
            if unit.held.clear <= unit.silent_since < unit.held.onset and unit.silent_since >= 0:
                unit.held.onset = unit.silent_since

    def _severity(self, context: Context, unit: Unit) -> Severity:
        if unit.share > self.dead and not (context.attention and unit.first >= 0):
            return "critical"
        if unit.share <= self.warn:
            return "info"
        if context.attention and unit.share - max(unit.first, 0.0) < self.note and unit.first >= 0:
            return "info"  # feed-forward layers of language models are sparse from the start
        return "warning"

    def findings(self, context: Context) -> list[Finding]:
        found = {name: unit for name, unit in self.units.items() if unit.held.fired}
        firing = {name: unit for name, unit in found.items() if not unit.held.resolved}
        shown = firing or found
        if not shown:
            return []
        rank = {"info": 0, "warning": 1, "critical": 2}
        severity = max(
            (self._severity(context, unit) for unit in shown.values()), key=rank.__getitem__
        )
        shown = {
            name: unit for name, unit in shown.items() if self._severity(context, unit) == severity
        }
        names = sorted(shown, key=lambda name: (shown[name].held.onset, shown[name].order))
        first = shown[names[0]]
        onset = min(unit.held.onset for unit in shown.values())
        behind = f" (behind {first.feeds})" if first.feeds else ""
        what = f"{100 * first.share:.3g} % of its units are dead"
        clear = first.held.clear if 0 <= first.held.clear < onset else onset
        before = f", which were active up to step {clear}" if clear < onset else ""
        tenth = f", over {100 * self.note:g} %" if 2 * self.note < first.share < self.dead else ""
        also = f", and {len(names) - 1} more layers" if len(names) > 1 else ""
        return [
            self._report(
                severity=severity,
                during=Span(onset, max(unit.held.last for unit in shown.values()), not firing),
                layers=names,
                seen=f"{names[0]}: {what}{before}",
                expected=f"Under {100 * self.note:g} % dead units, over at least {POSITIONS:,} "
                "samples",
                clear=clear,
                shares={name: round(shown[name].share, 4) for name in names[:50]},
                curve=first.curve.evidence(f"Dead units of {names[0]}", 0.0, self.note),
                title=f"{names[0]}{behind}: {what}{tenth} since step {onset}{also}",
                remedy="Lower the learning rate (one large step kills units) or what else pushes "
                "them below zero: a large negative bias, a strong penalty on activations. Use "
                "LeakyReLU or GELU, or put a norm layer before the activation. Dead units get no "
                "gradient and do not come back: restart from a checkpoint before this step, or "
                "initialise them anew.",
            )
        ]

    def _without_finding(self, context: Context) -> RuleState:
        if not self.samples:
            return self._state("not applicable", "No layer with a flat zero side was seen.")
        least = min(batches for _, _, batches in OBVIOUS)
        if self.samples < least:
            return self._state("not enough data", f"Judged after {least} sampled batches.")
        return self._state("ok", f"{self.relu_layers} layers judged, none with many dead units.")
