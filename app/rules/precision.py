"""low-precision-update-lost and adam-eps-dominates: updates that arithmetic swallows."""

from typing import ClassVar, Final

import numpy as np

from trainvitals.app.rules.context import Context, Mask, StepView, Table
from trainvitals.app.rules.finding import Finding
from trainvitals.app.rules.layerwise import LayerRule, layers_of
from trainvitals.app.rules.thresholds import Positive, Share

DIGITS: Final = 0x1FFF
"""Bits of a float32 that are zero in every float16 and bfloat16."""


class LowPrecisionUpdateLost(LayerRule):
    """Weights stored in 16 bits that do not move, as the update is below what they can hold."""

    id: ClassVar[str] = "low-precision-update-lost"
    warn: ClassVar[Share] = 0.9
    """Share of elements. In bfloat16 92 to 93 % stand still at a relative update of 3e-4, where only
    half of the intended change happens; 70 to 78 % at 1e-3, which still trains."""

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.parameters:
            lost = table.column("unchanged_fraction")
            moved = table.column("grad_absmax") > 0
            lost[~(table.group.matrix & moved & _sixteen_bits(table))] = np.nan
            self._take(view.step, table, lost, lost > self.warn, lost < 0.8, k=3, n=5)

    def findings(self, context: Context) -> list[Finding]:
        shown = self._shown()
        if not shown:
            return []
        layers, onset = layers_of(shown), min(row.held.onset for _, row in shown)
        worst = max(row.worst for _, row in shown)
        return [
            self._report(
                severity="warning",
                during=self._span(shown),
                layers=layers,
                title=f"{layers[0]}: {100 * worst:.3g} % of the 16-bit weights stand still since step {onset}",
                seen=f"{100 * worst:.3g} % of the elements are the same, bit for bit, after a step with a gradient",
                expected=f"Under {100 * self.warn:g} %",
                remedy="Keep the weights in float32 and let autocast compute in 16 bits; or keep a float32 copy in the "
                "optimizer, use stochastic rounding or Kahan summation, or raise the learning rate.",
                diff="- model.to(torch.bfloat16)\n+ with torch.autocast(device, torch.bfloat16):\n      loss = …",
                curve=shown[0][1].curve.evidence("Elements that stand still", None, self.warn),
            )
        ]

    @property
    def subject(self) -> str:
        return "weight matrix in 16 bits"


def _sixteen_bits(table: Table) -> Mask:
    """Rows whose largest weight is a number that 16 bits can hold: by chance 1 of 8192 others."""
    largest = table.column("weight_absmax").astype(np.float32)
    mask: Mask = (largest.view(np.uint32) & DIGITS == 0) & (largest > 0)
    return mask


class AdamEpsDominates(LayerRule):
    """Gradients so small that eps, not their size, sets the step of Adam."""

    id: ClassVar[str] = "adam-eps-dominates"
    warn: ClassVar[Share] = 0.5
    """Share of elements with √v below ten times eps. At a gradient of eps the update halves, at a tenth
    of it it is 9 % of normal."""
    tiny: ClassVar[Positive] = 1e-6
    """RMS of the gradient. Above it eps must be larger than the usual 1e-8: someone chose that."""

    def on_step(self, context: Context, view: StepView) -> None:
        for table in view.parameters:
            share, gradient = table.column("adam_eps_fraction"), table.column("grad_rms")
            share[~(table.group.matrix & (gradient > 0))] = np.nan
            over = (share > self.warn) & (gradient < self.tiny)
            self._take(view.step, table, share, over, share < self.warn / 2, k=5, n=5)

    def findings(self, context: Context) -> list[Finding]:
        shown = self._shown()
        # A net that has learned all there is has small gradients, too.
        if not shown or context.loss.slow < 0.5 * context.loss.initial:
            return []
        layers, onset = layers_of(shown), min(row.held.onset for _, row in shown)
        return [
            self._report(
                severity="warning",
                during=self._span(shown),
                layers=layers,
                title=f"{layers[0]}: gradients are so small that Adam's eps makes its steps shrink, since step {onset}",
                seen=f"{100 * shown[0][1].worst:.3g} % of the elements have a second moment near eps",
                expected=f"Under {100 * self.warn:g} %",
                remedy="Look why the loss is so small: a mean over too much, a factor, a wrong unit. Scale it up, or "
                "make eps smaller (1e-12).",
                curve=shown[0][1].curve.evidence("Elements ruled by eps", None, self.warn),
            )
        ]

    @property
    def subject(self) -> str:
        return "matrix under Adam"
