"""The order of calls in the training loop: backward, clipping, unscaling, the optimizer's step, the scheduler."""

from typing import ClassVar, Final

from trainvitals.app.rules.context import Context, StepView
from trainvitals.app.rules.observed import FINE, SKIP, Looked, ObservedRule, wrong
from trainvitals.hooks.wire.observed import Observed

GRADIENTS: Final = ("b", "g")
"""What makes gradients: a backward pass, or `autograd.grad`."""
SAID: Final = {
    "f": "forward",
    "b": "backward",
    "g": "grad",
    "c": "clip",
    "u": "unscale",
    "x": "scale",
    "l": "scheduler",
}
STEP: Final = "s0"
"""The step of the optimizer that counts."""


def spelled(order: list[str]) -> str:
    """The order as a finding shows it."""
    words = [
        SAID.get(token, f"zero_grad {token[1:]}" if token[:1] == "z" else f"step {token[1:]}")
        for token in order
    ]
    return " → ".join(words[:16]) + (" …" if len(words) > 16 else "")


def last_gradients(order: list[str]) -> int:
    """Place of the last call before the counting step that makes gradients; -1 without one."""
    places = [index for index, token in enumerate(order[: _step(order)]) if token in GRADIENTS]
    return places[-1] if places else -1


def _step(order: list[str]) -> int:
    return order.index(STEP) if STEP in order else len(order)


class CallOrder(ObservedRule):
    """The optimizer steps without gradients: none were made, they were cleared, or they went elsewhere."""

    id: ClassVar[str] = "call-order"
    expected: ClassVar[str] = (
        "zero_grad → forward → backward → (unscale → clip) → optimizer.step → scheduler.step"
    )
    remedy: ClassVar[str] = (
        "Put the calls into this order: zero_grad, forward, backward, step, and then the scheduler."
    )
    diff: ClassVar[str] = (
        "  optimizer.zero_grad()\n  loss.backward()\n  optimizer.step()\n  scheduler.step()"
    )
    about: ClassVar[str] = "No step was looked at yet."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        order = seen.order
        if STEP not in order:
            return SKIP
        shown = spelled(order)
        gradients = last_gradients(order)
        between = order[gradients + 1 : _step(order)]
        if gradients < 0 and seen.grads == 0:
            later = any(token in GRADIENTS for token in order)
            if later:  # a closure
                return FINE
            return wrong(
                "The optimizer steps without a backward pass: there are no gradients", shown
            )
        if gradients >= 0 and "z0" in between:
            return wrong("Gradients are cleared between backward and the optimizer's step", shown)
        if _clips_too_late(order):
            return wrong(
                "Gradients are clipped after the optimizer's step, when they have been used",
                shown,
                "warning",
            )
        if gradients >= 0 and "l" in between:
            return wrong(
                "The scheduler steps before the optimizer: the first learning rate is never used",
                shown,
                "warning",
            )
        return FINE


def _clips_too_late(order: list[str]) -> bool:
    """Whether norms are clipped, but never between a backward pass and the step that follows it."""
    fresh = clipped = False
    for token in order:
        if token in GRADIENTS:
            fresh = True
        elif token[:1] == "s":
            fresh = False
        elif token == "c":
            clipped = True
            if fresh:
                return False
    return clipped and any(token in GRADIENTS for token in order)


class ClipBeforeUnscale(ObservedRule):
    """Gradients are clipped while they are still multiplied by the gradient scaler."""

    id: ClassVar[str] = "clip-before-unscale"
    expected: ClassVar[str] = "scaler.unscale_(optimizer) before clipping"
    remedy: ClassVar[str] = (
        "Call scaler.unscale_(optimizer) after backward and before clip_grad_norm_."
    )
    diff: ClassVar[str] = (
        "+ scaler.unscale_(optimizer)\n  clip_grad_norm_(model.parameters(), 1.0)\n  scaler.step(optimizer)"
    )
    about: ClassVar[str] = "No gradient scaler was used together with clipping by norm."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        order = seen.order
        if "x" not in order or "c" not in order or "b" not in order:
            return SKIP
        after = order[order.index("b") :]
        if "c" in after and "u" not in after[: after.index("c")]:
            return wrong("Gradients are clipped before they are unscaled", spelled(order))
        return FINE


class LossDetached(ObservedRule):
    """A backward pass runs, and no watched parameter gets a gradient from it."""

    id: ClassVar[str] = "loss-detached"
    expected: ClassVar[str] = "A gradient for every parameter that the output depends on"
    remedy: ClassVar[str] = (
        "Look for detach(), .data, .item(), no_grad() or numpy between the model's output and the loss, for a model "
        "that was replaced by a copy after watch(), or for a loss that another model gives."
    )
    about: ClassVar[str] = "No backward pass was looked at yet."

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        gradients = last_gradients(seen.order)
        if gradients < 0 or seen.grads < 0 or "b" not in seen.order:
            return SKIP
        cleared = any(token[:1] == "z" for token in seen.order[gradients:])
        if seen.grads == 0 and not cleared:
            return wrong(
                "No gradient of the backward pass reaches any watched parameter",
                spelled(seen.order),
            )
        return FINE


class AmpWithoutScaler(ObservedRule):
    """float16 autocast without a gradient scaler: small gradients become 0."""

    id: ClassVar[str] = "amp-without-scaler"
    expected: ClassVar[str] = "A GradScaler with float16 autocast"
    remedy: ClassVar[str] = (
        "Scale the loss with torch.amp.GradScaler, or use bfloat16 where the hardware has it."
    )
    about: ClassVar[str] = "The model's output is not float16."

    dtype: str = ""

    def look(self, context: Context, view: StepView, seen: Observed) -> Looked:
        if seen.facts is not None:
            self.dtype = seen.facts.dtype
        if seen.output_dtype != "float16" or self.dtype != "float32" or "b" not in seen.order:
            return SKIP
        if "x" not in seen.order:
            return wrong(
                "float16 autocast runs without a gradient scaler", spelled(seen.order), "warning"
            )
        return FINE
