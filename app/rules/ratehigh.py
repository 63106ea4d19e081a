"""lr-too-high: several independent signs of the same thing, a learning rate that is too high."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from trainvitals.app.rules.base import sequence
from trainvitals.app.rules.composite import CompositeRule
from trainvitals.app.rules.context import Context
from trainvitals.app.rules.finding import MAX_LAYERS, SEVERITIES, Finding, RuleState
from trainvitals.app.rules.statistics import Span, number
from trainvitals.app.rules.thresholds import Count

SIGNS: Final[dict[str, str]] = {
    "update-ratio-high": "the size of the steps",
    "loss-divergence": "the loss",
    "loss-spike": "the loss",
    "nonfinite-loss": "the loss",
    "nonfinite-gradient": "the loss",
    "nonfinite-activation": "the loss",
    "gradient-exploding": "the gradient norm",
    "dead-units-growing": "the units",
    "dead-relu-units": "the units",
    "loss-oscillation": "the direction of the steps",
}
"""What each sign is seen in: two that are seen in the same are one."""

LOWER: Final = (
    "Lower the learning rate by 3 to 10, or warm it up over a few hundred steps. tv.preflight sweeps over rates "
    "and says from which one on the training runs away."
)


class LrTooHigh(CompositeRule):
    """The learning rate is too high: the training shows it in two ways at least."""

    id: ClassVar[str] = "lr-too-high"
    early: ClassVar[Count] = 100
    """Steps after the start, or after the last rise of the learning rate to a new height, in which a sign must begin: a
    rate that is too high shows at once. What begins later has a cause that came later, data most often."""
    signs: ClassVar[Count] = 2
    """Independent signs. One alone never yields this diagnosis: each has other causes as well."""
    windows: ClassVar[Count] = 3
    """Windows of 20 steps in which the gradient norm must have exploded: single batches do so in one or two."""

    def combine(self, context: Context, found: Sequence[Finding]) -> list[Finding]:
        signs = [finding for finding in found if self._counts(context, finding)]
        seen_in = list(dict.fromkeys(SIGNS[finding.rule] for finding in signs))
        if len(seen_in) < self.signs:
            return []
        signs.sort(key=lambda finding: (finding.first_step, list(SIGNS).index(finding.rule)))
        first, rate = signs[0], context.rate_top
        worst = max(signs, key=lambda finding: SEVERITIES.index(finding.severity))
        curve = next((f.evidence["curve"] for f in signs if "curve" in f.evidence), None)
        over = all(finding.state == "resolved" for finding in signs)
        size = next((finding for finding in signs if finding.rule == "update-ratio-high"), None)
        told = [*([] if size is None else [size]), *signs]
        named = next((finding for finding in told if finding.layers), first)
        more: dict[str, Any] = {} if curve is None else {"curve": curve}
        if named.concerned > MAX_LAYERS:
            more["layers"] = named.concerned
        each = [f"{sign.evidence['seen']}, since step {sign.first_step}" for sign in signs]
        title = (
            f"The learning rate of {rate:.3g} is too high, since step {first.first_step}: it shows in "
            f"{sequence(seen_in)}"
            if size is None
            else f"{size.title}; it shows in {_beside(size, signs)} as well"
        )
        return [
            self._report(
                severity=worst.severity,
                during=Span(first.first_step, max(finding.last_step for finding in signs), over),
                layers=named.layers,
                where=named.evidence["where"],
                title=title,
                seen="; ".join(each),
                each=each,
                expected="Steps that adjust the weights, and a loss that falls",
                remedy=LOWER if size is None else size.remedy,
                signs=[finding.rule for finding in signs],
                learning_rate=number(rate),
                rate_rose=True,
                **more,
            )
        ]

    def _counts(self, context: Context, finding: Finding) -> bool:
        """Whether a finding is a sign of the learning rate here."""
        if finding.rule not in SIGNS or finding.severity == "info":
            return False
        if finding.rule == "gradient-exploding" and finding.evidence["windows"] < self.windows:
            return False
        if finding.rule == "dead-relu-units" and finding.first_step <= context.first_step:
            return False  # they did not die, they never lived
        if finding.rule == "loss-oscillation":  # judges the direction of the steps itself
            return True
        return finding.first_step <= context.warm_up_end + self.early

    def _without_finding(self, context: Context) -> RuleState:
        if not context.records:
            return self._state("not enough data", "No step was recorded yet.")
        return self._state("ok", f"Fewer than {self.signs} independent signs of it.")


def _beside(size: Finding, signs: Sequence[Finding]) -> str:
    """What the other signs are seen in, with the step where that was before `size`, which the title dates."""
    first: dict[str, int] = {}
    for sign in signs:
        if SIGNS[sign.rule] != SIGNS[size.rule]:
            first.setdefault(SIGNS[sign.rule], sign.first_step)
    return sequence(
        [
            name if step >= size.first_step else f"{name} (since step {step})"
            for name, step in first.items()
        ]
    )
