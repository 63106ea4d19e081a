"""saturated-activation and input-insensitive: layers whose output no longer follows their input."""

from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule, listing
from trainvitals.app.rules.context import Context, Group, StepView, Table
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.app.rules.layerwise import LayerRule
from trainvitals.app.rules.statistics import Curve, Persistence, number
from trainvitals.app.rules.thresholds import Count, Share

GATES: Final = ("gate", "attn", "attention", "se_", "mask")
"""Parts of names of layers that are meant to be open or shut."""


class SaturatedActivation(LayerRule):
    """Units of a tanh or sigmoid layer whose outputs lie in one flat tail for nearly every sample."""

    id: ClassVar[str] = "saturated-activation"
    warn: ClassVar[Share] = 0.3
    """Share of units, each with more than 95 % of its samples in one tail. Healthy hidden layers stay
    below a tenth; a unit that switches between both tails is healthy and does not count."""

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.activations:
            shares = table.column("saturated_fraction")
            shares[~_hidden(table.group)] = np.nan
            over, calm = shares > self.warn, shares < self.warn / 2
            self._take(view.step, table, shares, over, calm, k=3, n=5)

    def findings(self, context: Context) -> list[Finding]:
        shown = self._shown()
        if not shown:
            return []
        first, row = shown[0]
        names = [name for name, _ in shown]
        share = f"{100 * row.worst:.3g} % of its units"
        return [
            self._report(
                severity="warning",
                during=self._span(shown),
                layers=names,
                title=f"{first}: {share} are saturated since step {row.held.onset}",
                seen=f"{share} give one end of the range for over 95 % of the samples",
                expected=f"Under {100 * self.warn:g} % such units",
                remedy="Saturated units pass hardly any gradient. Scale the initial weights or the inputs down, put "
                "a norm layer before the activation, lower the learning rate, or use ReLU or GELU.",
                shares={name: round(row.worst, 4) for name, row in shown[:50]},
                curve=row.curve.evidence(f"Saturated units of {first}", 0.0, self.warn),
            )
        ]

    @property
    def subject(self) -> str:
        return "hidden tanh or sigmoid layer"


def _hidden(group: Group) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows before the last matrix layer that are not gates by their names."""
    last = max((i for i, row in enumerate(group.rows) if row.type.startswith(MATRIX)), default=-1)
    names = [row.name.lower() for row in group.rows]
    gates = np.array([any(word in name for word in GATES) for name in names], dtype=np.bool_)
    return (np.arange(len(names)) < last) & ~gates


MATRIX: Final = ("Linear", "Conv", "LazyLinear")
"""Starts of the class names of layers with a weight matrix."""


class InputInsensitive(Rule):
    """From some layer on the output is the same for every sample: what the input says is lost there."""

    id: ClassVar[str] = "input-insensitive"
    limit: ClassVar[Share] = 1e-4
    """Variance between samples over the mean square. Healthy nets have 1e-2 and more, also at their start;
    deep plain stacks start lower and leave that within a hundred steps, hence the condition on the loss."""
    start: ClassVar[Count] = 20
    """Steps that a head which starts at zero may take."""

    held: Persistence = msgspec.field(default_factory=Persistence)
    curve: Curve = msgspec.field(default_factory=Curve)
    layers: list[str] = msgspec.field(default_factory=list)
    worst: float = 0.0
    samples: int = 0
    confirmed: bool = False
    """Whether the loss stood still at the same time."""

    def on_step(self, context: Context, view: StepView) -> None:
        self.confirmed |= self.held.fired and not self.held.resolved and context.loss.flat
        if view.step < context.first_step + self.start:
            return
        for table in view.activations:
            self._sample(view.step, table)

    def _sample(self, step: int, table: Table) -> None:
        group = table.group
        kinds = [row.type.startswith(MATRIX) for row in group.rows]
        rows = np.flatnonzero(kinds)
        variation = table.column("batch_variation")[rows]
        known = np.isfinite(variation)
        if len(rows) < 2 or not known[-1]:
            return
        self.samples += 1
        low = variation < self.limit
        blind = len(low) - len(np.trim_zeros(~low, "b"))  # rows from the end that are all low
        self.curve.add(step, float(np.log10(max(variation[-1], 1e-12))))
        # The last layer alone may have a large bias: the mean of the targets.
        self.held.update(step, blind >= 2, calm=variation[-1] > 10 * self.limit, k=3, n=5)
        if blind >= 2:
            self.layers = [group.rows[index].name for index in rows[len(rows) - blind :]]
            self.worst = float(np.nanmax(variation[len(rows) - blind :]))

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired or not (self.confirmed or context.loss.flat):
            return []
        first = self.layers[0]
        return [
            self._report(
                severity="warning",
                during=self.held.span,
                layers=self.layers,
                title=f"From {first} on the net gives the same output for every sample, since step {self.held.onset}",
                seen=f"Between samples {first} varies by {self.worst:.2g} of its mean square; the loss does not fall",
                expected=f"Over {self.limit:g}; healthy nets have 0.01 and more",
                remedy=f"Biases or a dead layer drown what comes in before {first}: look for biases far from zero, "
                "initialise the weights larger (He for ReLU), add norm layers, and check that the inputs differ.",
                variation=number(self.worst),
                curve=self.curve.evidence("log10 of the variation of the output", -4.0, None),
            )
        ]

    def state(self, context: Context) -> RuleState:
        if not self.samples:
            return self._state("not enough data", "No batch of two and more samples was seen yet.")
        if self.held.fired and not self.findings(context):
            return self._state("ok", f"{listing(self.layers)} varies little, and the loss falls.")
        return self._held(self.held, "The output follows the input.")
