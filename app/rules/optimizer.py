"""trainable-not-in-optimizer, unchanged-parameter, grad-not-zeroed: a wrongly wired loop."""

import math
from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule, listing
from trainvitals.app.rules.context import Context, Mask, StepView, Table
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import Persistence, Span
from trainvitals.app.rules.thresholds import Count, Share
from trainvitals.hooks.wire.records import Row

RESOLUTION: Final = 2.0**-22
"""Two units in the last place of a float32. A smaller update may round to nothing, rightly."""


MOST: Final = 50
"""Parameters that a look names at most."""


class Held(msgspec.Struct):
    """Since when a condition holds for one parameter, without a break."""

    since: int
    last: int
    samples: int
    layer: str
    elements: int
    gradient: bool = True


class ParameterRule(Rule):
    """Parameters for which a condition has held in every sample over `patience` steps."""

    patience: ClassVar[Count] = 20
    """Steps before a parameter counts as left out: a second optimizer shows itself at its first step."""
    trifle: ClassVar[Share] = 0.001
    """Of the trainable elements; less than this is worth a note only (a learnable temperature)."""

    held: dict[str, Held] = msgspec.field(default_factory=dict)
    total: float = 0.0
    """Trainable elements."""
    samples: int = 0
    fired: dict[str, Held] = msgspec.field(default_factory=dict)
    """Parameters found; kept after the condition ended."""

    def _take(self, step: int, table: Table, wrong: Mask, known: Mask, gradient: Mask) -> None:
        """Take a sample. wrong: the condition holds. known: the sample says so or not."""
        group = table.group
        self.samples += 1
        self.total = float(group.elements[group.trainable].sum())
        for index in np.flatnonzero(known & ~wrong):
            self.held.pop(group.rows[index].name, None)
        for index in np.flatnonzero(wrong):
            self._count(step, group.rows[index], bool(gradient[index]))

    def _take_names(
        self, context: Context, step: int, names: Sequence[str], gradient: bool
    ) -> None:
        """Take a look between samples, which names all of this `gradient` for which the condition holds."""
        if len(names) < MOST:
            over = [n for n, held in self.held.items() if held.gradient == gradient]
            for name in set(over) - set(names):
                del self.held[name]
        for row in _rows(context, names):
            self._count(step, row, gradient)

    def _count(self, step: int, row: Row, gradient: bool) -> None:
        held = self.held.get(row.name)
        if held is None:
            held = self.held[row.name] = Held(step, step, 0, row.layer, math.prod(row.shape))
        held.last = step
        held.samples += 1
        held.gradient = gradient
        if held.samples >= 3 and step - held.since >= self.patience:
            self.fired[row.name] = held

    @property
    def _open(self) -> dict[str, Held]:
        now = self.held
        return {
            name: held
            for name, held in self.fired.items()
            if name in now and now[name].since == held.since
        }

    def _found(self) -> dict[str, Held]:
        """Those the finding speaks of: the open ones, or all once none is open."""
        return self._open or self.fired

    def _base(
        self, severity: Severity, title: str, seen: str, expected: str, remedy: str
    ) -> Finding:
        found = self._found()
        onset = min(held.since for held in found.values())
        layers = list(dict.fromkeys(held.layer for held in found.values()))
        return self._report(
            severity=severity,
            during=Span(onset, max(held.last for held in found.values()), not self._open),
            layers=layers,
            seen=seen,
            expected=expected,
            where=listing(list(found), "parameters"),
            parameters=list(found)[:50],
            share=round(self._share(), 6),
            title=title,
            remedy=remedy,
        )

    def _share(self) -> float:
        found = sum(held.elements for held in self._found().values())
        return found / self.total if self.total else 0.0

    def _without_finding(self, context: Context) -> RuleState:
        if not self.samples:
            return self._state("not enough data", "No parameter was sampled yet.")
        if context.steps <= self.patience:
            return self._state("not enough data", f"Judged after {self.patience} steps.")
        return self._state("ok", f"No such parameter in {self.samples} samples.")


def _rows(context: Context, names: Sequence[str]) -> list[Row]:
    """The rows of parameters of these names, in forward order."""
    wanted = set(names)
    rows = [
        row
        for layout in context.layouts.values()
        if layout.kind == "parameter"
        for row in layout.rows
        if row.name in wanted
    ]
    return rows if wanted else []


class TrainableNotInOptimizer(ParameterRule):
    """A parameter receives gradients, and no optimizer holds it."""

    id: ClassVar[str] = "trainable-not-in-optimizer"

    head_only: bool = False

    def on_step(self, context: Context, view: StepView) -> None:
        seen = view.observed
        if seen is not None and seen.unheld is not None and not view.parameters:
            self._take_names(context, view.step, seen.unheld, gradient=True)
        for table in view.parameters:
            group = table.group
            if not group.in_optimizer.any():
                continue  # no optimizer was seen yet
            self.head_only = group.head_only
            gradient = table.column("grad_rms")
            received = gradient > 0
            wrong = group.trainable & ~group.in_optimizer & received
            known = ~np.isnan(gradient) | group.in_optimizer | ~group.trainable
            self._take(view.step, table, wrong, known, received)

    def findings(self, context: Context) -> list[Finding]:
        found = self._found()
        if not found:
            return []
        share = self._share()
        first = next(iter(found))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        holds = "holds it" if len(found) == 1 else "holds them"
        finding = self._base(
            "info" if share < self.trifle or self.head_only else "critical",
            f"{first}{more}: gradients arrive at every step, but no optimizer {holds}, so "
            f"{100 * share:.3g} % of the trainable weights never learn",
            f"{len(found)} trainable parameters with a gradient and in no optimizer",
            "Every trainable parameter in exactly one optimizer",
            "Create the optimizer after the whole model is built, from model.parameters(); add a "
            "layer made later with optimizer.add_param_group. If it is meant to stay fixed, set "
            "requires_grad_(False).",
        )
        diff = f'+ optimizer.add_param_group({{"params": [model.{first}]}})'
        return [msgspec.structs.replace(finding, diff=diff)]


class UnchangedParameter(ParameterRule):
    """A trainable parameter does not change by a single bit although the learning rate is not 0.

    Either it has a gradient large enough to move it, or no gradient reaches it at all.
    """

    id: ClassVar[str] = "unchanged-parameter"

    never: set[str] | None = None
    """Parameters that had no gradient in any look; None before the first."""

    def on_step(self, context: Context, view: StepView) -> None:
        rates = list(context.rates.values())
        if not rates or min(rates) <= 0:
            return  # a rate of 0 may be that of any parameter
        seen = view.observed
        if seen is not None and seen.ungiven is not None and not view.parameters:
            # An optimizer passes over what has no gradient. Whether others have moved a look does not see, and what
            # had a gradient once is cut off by chance: a layer that is dropped at times, an expert.
            without = set(seen.ungiven) if self.never is None else self.never & set(seen.ungiven)
            self.never = without
            self._take_names(context, view.step, sorted(without), gradient=False)
        for table in view.parameters:
            unchanged = table.column("unchanged")
            size = table.column("grad_absmax")
            moves = max(rates) * size > RESOLUTION * table.column("weight_absmax")
            broken = (table.column("weight_nonfinite") > 0) | (table.column("grad_nonfinite") > 0)
            nothing = (np.isnan(size) | (size == 0)) & ~broken
            held = table.group.in_optimizer | (not table.group.head_only)
            wrong = table.group.trainable & held & (unchanged == 1) & (moves | nothing) & ~broken
            self._take(view.step, table, wrong, ~np.isnan(unchanged), moves)

    def findings(self, context: Context) -> list[Finding]:
        found = self._found()
        if not found:
            return []
        share = self._share()
        cut_off = [name for name, held in found.items() if not held.gradient]
        severity: Severity = "critical"
        if share < self.trifle:
            severity = "info"
        elif all("expert" in name for name in found):
            severity = "info"  # no sample was sent to them lately
        elif len(cut_off) == len(found) and share <= 0.5:
            severity = "warning"
        first = next(iter(found))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        why = "no gradient reaches it" if cut_off else "it receives gradients"
        return [
            self._base(
                severity,
                f"{first}{more}: not one bit changed since step "
                f"{min(held.since for held in found.values())}, although "
                + ("it is trainable: " if cut_off else "")
                + why
                + f" ({100 * share:.3g} % of the trainable weights)",
                f"{len(found)} parameters unchanged, {len(cut_off)} of them without any gradient",
                "Every trainable parameter changes at every optimizer step",
                "Without a gradient: look for detach(), no_grad(), .data or .item() between this "
                "layer and the loss, or a branch whose output is not used. With one: the optimizer "
                "does not hold this very tensor (the model was rebuilt, moved or re-tied after the "
                "optimizer was made), or its group's learning rate is 0.",
            )
        ]


class GradNotZeroed(Rule):
    """Every backward finds the gradients of the step before still there, and adds to them."""

    id: ClassVar[str] = "grad-not-zeroed"

    held: Persistence = msgspec.field(default_factory=Persistence)

    def on_step(self, context: Context, view: StepView) -> None:
        carried = view.scalars.get("tv/grad_carried")
        if carried is not None:
            self.held.update(view.step, carried == 1, calm=carried == 0, k=5, n=5)

    def findings(self, context: Context) -> list[Finding]:
        if not self.held.fired:
            return []
        onset = self.held.onset
        return [
            self._report(
                severity="critical",
                during=self.held.span,
                seen="At every backward, gradients of the step before were still there",
                expected="Gradients set to zero or None between steps",
                where="the training loop",
                title=f"Gradients are never set to zero: since step {onset} each step adds to those "
                "of all steps before",
                remedy="Call optimizer.zero_grad() once per step, before backward. It looks like a "
                "learning rate that is too high, but lowering that only hides it. With gradient "
                "accumulation call it after every optimizer step.",
                diff="+ optimizer.zero_grad()\n  loss.backward()",
            )
        ]

    def state(self, context: Context) -> RuleState:
        if not self.held.count:
            return self._state("not enough data", "No backward was watched yet.")
        return self._held(self.held, "Gradients are cleared between steps.")
