"""preflight: what the checks before the training have found, beside what the training shows."""

from typing import ClassVar

import msgspec

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState
from trainvitals.hooks.wire.observed import Checked


class Preflight(Rule):
    """A check of `tv.preflight` has failed.

    One finding a failed check, as it was found; the latest preflight counts. Applies to: runs that were open when
    `tv.preflight` ran. Guards and sources are those of the checks (docs/preflight.md).
    """

    id: ClassVar[str] = "preflight"

    step: int = -1
    results: list[Checked] = msgspec.field(default_factory=list)

    def on_step(self, context: Context, view: StepView) -> None:
        if view.observed is not None and view.observed.preflight:
            self.step, self.results = view.step, view.observed.preflight

    def findings(self, context: Context) -> list[Finding]:
        return [
            Finding(
                key=f"{self.id}:{result.check}",
                rule=self.id,
                severity=result.outcome,
                state="firing",
                first_step=self.step,
                last_step=self.step,
                layers=result.layers,
                root=True,
                cause="",
                evidence={
                    "seen": result.seen,
                    "expected": result.expected,
                    "since": self.step,
                    "where": "before the training",
                    "check": result.check,
                },
                title=f"Preflight, {result.check}: {result.seen}",
                remedy=result.remedy,
            )
            for result in self.results
            if result.outcome != "pass" and result.outcome != "skipped"
        ]

    def state(self, context: Context) -> RuleState:
        if not self.results:
            return self._state("not applicable", "tv.preflight did not run in this run.")
        wrong = self.findings(context)
        if wrong:
            return self._state("firing", f"{len(wrong)} of {len(self.results)} checks.")
        return self._state("ok", f"{len(self.results)} checks passed.")
