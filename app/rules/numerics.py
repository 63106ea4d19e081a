"""nonfinite-loss, nonfinite-gradient, nonfinite-activation: where the first NaN came from."""

import math
from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec
import numpy as np

from trainvitals.app.rules.base import Rule
from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.finding import Finding, RuleState, Severity
from trainvitals.app.rules.statistics import number
from trainvitals.app.rules.thresholds import Count
from trainvitals.hooks.wire.records import Event, NonFinite
from trainvitals.hooks.wire.verdict import NONFINITE_RULES


class Sighting(msgspec.Struct, frozen=True, order=True):
    """Something non-finite, in the order in which sightings are preferred."""

    attempt: str
    step: int
    vague: bool
    """Known from a number only, without the origin that an event tells."""
    rank: int
    origin: NonFinite | None = None


class NonFiniteRule(Rule):
    """What the three rules share: the earliest sighting, the last one, the origin of it all.

    All of it is minima and maxima, so ranks may report in any order.
    """

    directions: ClassVar[tuple[str, ...]]
    what: ClassVar[str]
    recovered: ClassVar[Count] = 100
    """Finite steps after which a non-finite one counts as over: a skipped batch, not a ruined run."""

    first: Sighting | None = None
    last: tuple[str, int] = ("", -1)
    origin: Sighting | None = None
    """The earliest sighting with an origin, of whichever rule."""
    events: int = 0
    attempt_start: int = -1
    """First step of rank 0's latest attempt."""
    attempt: str = ""
    reached: int = -1
    still: tuple[str, int] = ("", -1)
    """Last sample in which something was not finite, whether or not that means anything."""
    printed: bool = False
    """Whether rank 0 logged something non-finite by itself."""
    finite_gradients: int = 0
    """Finite gradient norms that rank 0 had after that."""

    loss: tuple[str, int] = ("", -1)
    """First step at which rank 0's training loss was not finite."""

    def on_event(self, context: Context, position: tuple[str, int, int], event: Event) -> None:
        if event.kind != "nonfinite":
            return
        try:
            origin = msgspec.convert(event.data, NonFinite)
        except msgspec.ValidationError:
            return  # of a later version of the hooks
        attempt, step, rank = position
        sighting = Sighting(attempt, step, False, rank, origin)
        self.origin = sighting if self.origin is None else _earlier(self.origin, sighting)
        if origin.direction in self.directions:
            self.events += 1
            self._see(sighting)

    def on_step(self, context: Context, view: StepView) -> None:
        if context.attempt != self.attempt:
            self.attempt, self.attempt_start = context.attempt, view.step
        self.reached = view.step
        if self.loss[1] < 0 and view.loss is not None and not math.isfinite(view.loss):
            self.loss = (context.attempt, view.step)
        if self._nonfinite(view):
            self.printed = True
            self._see(Sighting(context.attempt, view.step, True, 0))
        elif self._still(view):
            self.still = (context.attempt, view.step)
        if self.printed and math.isfinite(view.scalars.get("tv/grad_norm", math.nan)):
            self.finite_gradients += 1

    def _nonfinite(self, view: StepView) -> bool:
        """Whether this step alone is reason enough to fire."""
        return False

    def _still(self, view: StepView) -> bool:
        """Whether this step shows that what fired goes on."""
        return False

    def _see(self, sighting: Sighting) -> None:
        self.first = sighting if self.first is None else _earlier(self.first, sighting)
        self.last = max(self.last, (sighting.attempt, sighting.step))

    def _severity(self) -> Severity:
        return "critical"

    def findings(self, context: Context) -> list[Finding]:
        if self.first is None:
            return []
        first = self.first
        origin = self._origin or first
        if first.vague and origin.step == first.step and _rule_of(origin) == self.id:
            first = origin
        data = first.origin or NonFinite(direction="loss")
        layer = data.layer
        named = bool(first.origin) and data.direction in self.directions
        layers = [layer] if named and layer else []
        return [
            Finding(
                key=self.id,
                rule=self.id,
                severity=self._severity(),
                state="resolved" if self._recovered else "firing",
                first_step=first.step,
                last_step=max(self._latest[1], first.step),
                layers=layers,
                root=True,
                cause="",
                evidence=self._evidence(first, origin),
                title=_title(self.what, first),
                remedy=_remedy(origin.origin, origin.step),
            )
        ]

    @property
    def _origin(self) -> Sighting | None:
        """The earliest origin. Gradients of a loss that was not finite itself are the loss's fault."""
        origin = self.origin
        if origin is None or origin.origin is None or origin.origin.direction != "backward":
            return origin
        if (origin.attempt, origin.step) != self.loss:
            return origin
        data = msgspec.structs.replace(
            origin.origin, direction="loss", layer="", parameter="", type=""
        )
        return msgspec.structs.replace(origin, origin=data)

    @property
    def _latest(self) -> tuple[str, int]:
        return max(self.last, self.still)

    @property
    def _recovered(self) -> bool:
        attempt, step = self._latest
        if self.attempt > attempt:
            return self.reached - self.attempt_start >= self.recovered
        return self.reached - step >= self.recovered

    def _evidence(self, first: Sighting, origin: Sighting) -> dict[str, object]:
        data = origin.origin
        where = "not told by the hooks"
        evidence: dict[str, object] = {
            "seen": f"{self.what} was not finite at step {first.step}",
            "expected": "Finite numbers at every step",
            "since": first.step,
        }
        if data is not None:
            where = _place(data)
            evidence["origin"] = {
                "rule": NONFINITE_RULES[data.direction],
                "direction": data.direction,
                "layer": data.layer,
                "type": data.type,
                "parameter": data.parameter,
                "step": origin.step,
                "rank": origin.rank,
                "nan": data.nan,
                "inf": data.inf,
                "inputs": [_plain(entry) for entry in data.inputs[:8]],
                "spread": data.spread[:50],
                "spread_count": data.spread_count,
                "gradients": data.gradients,
            }
            if data.fingerprint:
                evidence["batch"] = _batch(data, origin.rank)
        evidence["where"] = where
        return evidence

    def state(self, context: Context) -> RuleState:
        if self.first is None:
            if self.reached < 0:
                return self._state("not enough data", "No step was recorded yet.")
            return self._state("ok", f"Finite up to step {self.reached}.")
        if self._recovered:
            return self._state("resolved", f"Finite again since step {self._latest[1] + 1}.")
        return self._state("firing", f"Not finite since step {self.first.step}.")


class NonFiniteActivation(NonFiniteRule):
    """A layer turned finite inputs into NaN or infinity, or was fed with them."""

    id: ClassVar[str] = "nonfinite-activation"
    directions: ClassVar[tuple[str, ...]] = ("forward", "input", "parameter")
    what: ClassVar[str] = "An activation"

    def _still(self, view: StepView) -> bool:
        # Infinite values are intended in masks, so counts alone never start a finding.
        return any(np.nansum(table.column("nonfinite")) > 0 for table in view.activations)


class NonFiniteGradient(NonFiniteRule):
    """A gradient, or the weights after the update, became NaN or infinite."""

    id: ClassVar[str] = "nonfinite-gradient"
    directions: ClassVar[tuple[str, ...]] = ("backward", "update")
    what: ClassVar[str] = "A gradient"

    def _nonfinite(self, view: StepView) -> bool:
        return not math.isfinite(view.scalars.get("tv/grad_norm", 0.0))


class NonFiniteLoss(NonFiniteRule):
    """The training loss became NaN or infinite."""

    id: ClassVar[str] = "nonfinite-loss"
    directions: ClassVar[tuple[str, ...]] = ("loss",)
    what: ClassVar[str] = "The training loss"

    def _nonfinite(self, view: StepView) -> bool:
        return view.loss is not None and not math.isfinite(view.loss)

    def _severity(self) -> Severity:
        # Logged as NaN but never sent backwards: a term that was only printed, or a skipped batch.
        return "info" if self.origin is None and self.finite_gradients >= 3 else "critical"


ORDER: Final = ("input", "parameter", "forward", "loss", "backward", "update")
"""Directions from cause to consequence within a step. Ranks that train together share their gradients, so that the
NaN of one rank's forward pass is seen by all others, at the same step, as one of their backward passes."""


def _earlier(one: Sighting, other: Sighting) -> Sighting:
    return one if _order(one) <= _order(other) else other


def _order(sighting: Sighting) -> tuple[str, int, bool, int, int]:
    direction = ORDER.index(sighting.origin.direction) if sighting.origin else len(ORDER)
    return (sighting.attempt, sighting.step, sighting.vague, direction, sighting.rank)


def _rule_of(sighting: Sighting) -> str:
    return NONFINITE_RULES[sighting.origin.direction] if sighting.origin else ""


def _kind(data: NonFinite) -> str:
    if data.nan and data.inf:
        return "NaN and infinity"
    return "Infinity" if data.inf else "NaN"


def _place(data: NonFinite) -> str:
    layer = f"{data.layer or 'the model'}" + (f" ({data.type})" if data.type else "")
    match data.direction:
        case "input":
            return f"the data that went into {layer}"
        case "parameter":
            return f"the parameter {data.parameter}"
        case "forward":
            return f"the output of {layer}"
        case "loss":
            return "the loss itself: every layer's output was finite"
        case "backward":
            return f"the gradient of {data.parameter}" if data.parameter else f"behind {layer}"
        case "update":
            return f"the update of {data.parameter}"


def _title(what: str, first: Sighting) -> str:
    data = first.origin
    rank = f" on rank {first.rank}" if first.rank else ""
    if data is None:
        return f"{what} became NaN or infinite at step {first.step}"
    text = f"{_kind(data)} first appeared in {_place(data)} at step {first.step}{rank}"
    if data.direction == "forward" and (ranges := _ranges(data)):
        text += f"; its inputs were finite ({ranges})"
    return text


def _ranges(data: NonFinite) -> str:
    ranges = []
    for entry in data.inputs:
        low, high = entry.get("min"), entry.get("max")
        if (
            isinstance(low, int | float)
            and isinstance(high, int | float)
            and not entry.get("nonfinite")
        ):
            ranges.append(f"{low:.3g} … {high:.3g}")
    return ", ".join(ranges[:2])


def _batch(data: NonFinite, rank: int) -> str:
    """The step's batch in words: what it takes to find it again."""
    tensors = []
    for entry in data.fingerprint[:4]:
        shape = entry.get("shape")
        size = " × ".join(map(str, shape)) if isinstance(shape, list) and shape else "a number"
        checksum = f" (CRC-32 {entry['crc32']})" if "crc32" in entry else ""
        tensors.append(f"{size} of {entry.get('dtype', 'numbers')}{checksum}")
    return ", ".join(tensors) + (f", on rank {rank}" if rank else "")


def _plain(entry: Mapping[str, object]) -> dict[str, object]:
    return {
        key: number(value) if isinstance(value, float) else value for key, value in entry.items()
    }


def _remedy(data: NonFinite | None, step: int) -> str:
    lower = (
        "It came within the first 100 steps: lower the learning rate by 10 and warm it up. "
        if step <= 100
        else "Go back to the last good checkpoint. "
    )
    if data is None:
        return lower + "Give the model to tv.watch to learn where the first NaN arises."
    match data.direction:
        case "input":
            return (
                "The batch holds NaN or infinity before the model sees it: look for missing values, "
                "a division by a zero standard deviation, or a log of zero in the preprocessing, "
                "and drop or fill them."
            )
        case "parameter":
            return (
                "A weight was already broken when the step began: the update before it, or a "
                "loaded checkpoint. Restore the last good one and clip gradients."
            )
        case "forward":
            return (
                f"Look at what {data.layer or 'the layer'} computes: add an epsilon inside log, sqrt "
                "and divisions, clamp the argument of exp, and run it in float32. If its inputs "
                "were already very large, the cause is upstream: lower the learning rate."
            )
        case "loss":
            return (
                "All layers were finite, so the loss function made it: a log of 0, a 0/0 over an "
                "empty or fully ignored batch, labels out of range. Use the with-logits form of "
                "the loss, or clamp its argument."
            )
        case _:
            return (
                lower + "The forward pass was finite, so a derivative was not: sqrt or norm at 0, "
                "log of a softmax, a division, or overflow in half precision. Add an epsilon, clip gradients, and "
                "keep that operation in float32."
            )
