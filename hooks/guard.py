"""Watches every step for the first NaN or infinity and says where it came from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from trainvitals.hooks.aftermath import Aftermath
from trainvitals.hooks.call import Call
from trainvitals.hooks.leaves import leaves
from trainvitals.hooks.nonfinite import (
    explain_forward,
    explain_gradients,
    explain_loss,
    explain_minus_infinity,
    explain_parameters,
    fingerprint,
    is_finite,
)
from trainvitals.hooks.quiet import LEAST_CALLS, Quiet
from trainvitals.hooks.registry import Parameter, Registry, local, unwrap
from trainvitals.hooks.skipped import Skipped
from trainvitals.hooks.slim import whole
from trainvitals.hooks.stats import values_of
from trainvitals.hooks.vouching import Vouching
from trainvitals.hooks.wire.records import NonFinite

PASSES = 3
"""Forward passes whose calls are kept at most, when no backward pass lets go of them."""
_FOLLOWING = 8
"""Calls that may follow that of a model in its forward pass."""


class Guard:
    """Keeps the calls of the forward passes until backward begins, and looks only at the loss.

    A loss that is not finite is explained by the calls, before backward frees anything, or by what the step
    before did to the weights. Works on CPU
    tensors, where looking costs no wait.
    """

    def __init__(
        self,
        registry: Registry,
        quiet: Quiet,
        report: Callable[[int, NonFinite], None],
    ) -> None:
        """`report(step, found)` sends a finding."""
        self._registry = registry
        self._quiet = quiet
        self._report = report
        self._vouching = Vouching(registry)
        self.skipped = Skipped(registry, quiet)
        self._last_bad = -2
        self._tentative: NonFinite | None = None
        self._unrefined: tuple[int, NonFinite] | None = None
        self._at_clipping: NonFinite | None = None
        self._unplaced = -1
        self.doubts = False
        """Whether something was seen that the optimizer's step decides on: a scaler may skip it."""
        self._spoilt: dict[int, Parameter] = {}
        """By the tensor's id: weights that were non-finite after a step that was told of, and have been since then."""

    def resize(self) -> None:
        """Follow the size of the watched models; forgets the calls."""
        quiet = self._quiet
        quiet.roots = self._registry.roots
        self._vouching.resize()
        self.skipped.resize()
        quiet.one_pass = len(self._registry.layers)
        quiet.most_rows = max(LEAST_CALLS // max(quiet.one_pass, 1), PASSES)
        quiet.keep_calls(max(LEAST_CALLS, PASSES * quiet.one_pass))

    def begin_step(self) -> None:
        """A new step: nothing of the last one is known or kept."""
        self.forget_calls()
        self._tentative = self._unrefined = None
        self._at_clipping = None
        self.doubts = False

    def known_bad(self, step: int) -> bool:
        """Whether this step or the one before was found non-finite already."""
        return step - self._last_bad <= 1

    # Forward and loss

    def _last_batch(self) -> object:
        """Arguments of the last call of a watched model, which few calls follow: of wrappers and of the loss."""
        calls = self._quiet.calls
        try:
            for place in range(-1, -min(len(calls), _FOLLOWING) - 1, -1):
                call = calls[place]
                if self._registry.is_root(call[0]):
                    return call[1:3]
        except IndexError:
            pass  # another thread lets go of them meanwhile
        return None

    def forget_calls(self) -> None:
        """The step is over: whatever backward did not let go of goes now, but for the batch."""
        quiet = self._quiet
        if quiet.calls:
            quiet.batch = self._last_batch() or quiet.batch
            quiet.calls.clear()

    def forget(self) -> None:
        """Keep nothing of the training."""
        self.begin_step()
        self._vouching.forget()
        self._quiet.batch = None
        self._spoilt = {}

    def saw_bad_loss(self, step: int, loss: object) -> None:
        """Backward is about to begin from a loss that is not finite; say why, once."""
        if self.known_bad(step):  # it stays bad: localising costs much and tells nothing new
            self._last_bad = step
            return
        self._registry.refresh()  # the names of layers that are new
        if self.check_last_steps():
            self._last_bad = step
            return
        if not any(self._registry.name_of(call[0]) is not None for call in self._quiet.calls):
            # Of another model or of compiled code, or an earlier backward pass let go of the calls.
            found = explain_parameters(leaves(loss), self._registry)
            if found is None:  # the gradients will tell
                self._unplaced = step
            elif self._is_spoilt(found.parameter):
                self._last_bad = step
            else:
                self._tell(step, found)
            return
        found = explain_forward(whole(self._quiet.calls), self._registry)
        if found is None:
            found = explain_loss(loss)
            # A gradient scaler's own factor may be what overflows; then no optimizer step will follow.
            if found.nan == 0:
                calls = whole(self._quiet.calls)
                self._tentative = explain_minus_infinity(calls, self._registry) or found
                self._doubt()
                return
        elif found.direction == "parameter" and self._is_spoilt(found.parameter):
            self._last_bad = step
            return
        elif found.direction == "forward" and self._may_be_recomputed(found.layer):
            self._unrefined = step, found
            self._last_bad = step
            self.forget_calls()  # so that those of the recomputation are known
            return
        self._tell(step, found)

    def saw_skipped(self, step: int, calls: Sequence[Call]) -> None:
        """These calls of the step led to what is not finite, and its loss, which is fine, does not come from it."""
        if self.known_bad(step) or self.check_last_steps():
            return
        self._registry.refresh()
        found = self._explain_outcome(calls)
        if found is not None and not self._is_spoilt(found.parameter):
            batch = next((c[1:3] for c in reversed(calls) if self._registry.is_root(c[0])), None)
            self._tell(step, found, batch)

    def _explain_outcome(self, calls: Sequence[Call]) -> NonFinite | None:
        """Where what came of these calls broke, which no backward pass begins from; None where nothing did."""
        found = explain_forward(whole(calls), self._registry)
        if (
            found is None
            and calls
            and isinstance(calls[-1][0], _Loss)
            and self.skipped.is_bad(calls[-1])
        ):
            found = explain_loss(calls[-1][3])
        return found

    def _is_spoilt(self, parameter: str) -> bool:
        """Whether it is broken since a step that was told of."""
        return any(known.name == parameter for known in self._spoilt.values())

    def _may_be_recomputed(self, layer: str) -> bool:
        """Whether the layers inside this one ran unseen, as in a checkpoint that records no gradients."""
        inside = f"{layer}." if layer else ""
        called = {(self._registry.name_of(call[0]) or "") for call in whole(self._quiet.calls)}
        children = [name for name in self._registry.layers.values() if name.startswith(inside)]
        return any(name and name != layer and name not in called for name in children)

    def let_go(self, retained: bool = False) -> None:
        """Let go of the calls and of the last steps' gradients, so that backward can free what they hold.

        While their graph is `retained`, the calls are of use for another loss of it. Several passes may wait for a
        backward each; then it is the end of the step that lets go of them. The batch stays until the next loss tells
        how the step went.
        """
        self.steps_went_well()
        self._let_go_of_calls(retained)

    def _let_go_of_calls(self, retained: bool) -> None:
        calls = self._quiet.calls
        if calls and not retained and len(calls) <= self._quiet.one_pass + self._beside():
            self.forget_calls()

    def steps_went_well(self) -> None:
        """A loss is as it should be: let go of the gradients of the last steps that it tells of."""
        self._quiet.keep_pending()
        if self._quiet.kept:
            self._vouching.let_go(self._quiet.kept, self._quiet.calls)

    def _beside(self) -> int:
        """How many of the last calls belong to the model's pass, but to none of its modules: wrappers and losses."""
        beside = 0
        for module, *_ in list(self._quiet.calls)[
            : -_FOLLOWING - 1 : -1
        ]:  # others may go on calling
            if module in self._registry.roots:
                return beside
            if not isinstance(module, _Loss) and unwrap(module) not in self._registry.roots:
                break
            beside += 1
        return 0

    @property
    def waits_for_recomputation(self) -> bool:
        """Whether backward may tell more of what was found."""
        return self._unrefined is not None

    def after_backward(self, retained: bool) -> None:
        """Backward is over, its graph freed unless `retained`; recomputed layers may tell more of what happened."""
        if self._unrefined is not None:
            (step, found), self._unrefined = self._unrefined, None
            self._send(step, self._refined(found))
        self._let_go_of_calls(retained)  # optimizers may have stepped inside it

    def _refined(self, found: NonFinite) -> NonFinite:
        """What the recomputed layers tell of a finding. Those of a checkpoint inside another follow the rest."""
        calls = whole(self._quiet.calls)
        inside = ""
        while calls:
            better = explain_forward(calls, self._registry)
            if better is None or not better.layer.startswith(inside):
                break
            if better.direction == "input":  # code made it, not a layer
                break
            found = _more_precisely(found, better)
            inside = f"{found.layer}." if found.layer else ""
            names = [self._registry.name_of(call[0]) for call in calls]
            calls = calls[names.index(found.layer) + 1 :] if found.layer in names else []
        return found

    def saw_late_bad_loss(self, step: int) -> None:
        """A device has delivered a loss that is not finite; which layer made it is not known any more."""
        self._tell(step, NonFinite(direction="forward"))

    # Gradients and update

    def saw_bad_norm(self, holders: Sequence[Parameter]) -> None:
        """Gradients are about to be clipped by a norm that is not finite, which spoils all of them."""
        bad = bad_gradients(holders)
        if bad and self._at_clipping is None:
            self._at_clipping = explain_gradients(bad, self._registry)
            self._doubt()

    def _doubt(self) -> None:
        self.doubts, self._quiet.on = True, False

    @property
    def is_calm(self) -> bool:
        """Whether nothing has to be looked at when an optimizer steps."""
        return not self.doubts and not self._spoilt and not self.known_bad(self._quiet.completed)

    def stepped(self, aftermath: Aftermath | None, step: int) -> None:
        """An optimizer has stepped; `aftermath` is what is kept of it, None where nothing that it moves is watched."""
        if aftermath is not None:
            # No loss was seen since its last step: none may be from now on.
            unread = self._keep(aftermath, step)
            self._follow_spoilt(aftermath, step)
            if (
                unread or step == self._unplaced
            ):  # or the next loss may be one that does not show it
                self._explain(aftermath)
        if self.doubts:
            self.settle(step)

    def evaluated(self, aftermath: Aftermath, step: int) -> None:
        """A backward pass inside of an optimizer's step is over: it may move the weights before the next."""
        self._keep(aftermath, step)

    def _keep(self, aftermath: Aftermath, step: int) -> bool:
        """Keep the gradients until a loss tells how the step went; whether those of an earlier one were kept still."""
        self._quiet.keep_pending()
        known = aftermath in self._quiet.kept
        unread = known and aftermath.step != step
        aftermath.keep(step)
        if not known:
            self._quiet.kept.append(aftermath)
        return unread

    def _follow_spoilt(self, aftermath: Aftermath, step: int) -> None:
        """Keep in mind what is broken anyway, as long as it is: a layer may be idle meanwhile, and the losses fine."""
        if self.known_bad(step):
            self._spoilt |= {id(parameter.tensor): parameter for parameter in aftermath.bad()}
            self._quiet.on &= not self._spoilt
        elif self._spoilt:
            self._spoilt = {k: p for k, p in self._spoilt.items() if not is_finite(p.tensor)}

    def settle(self, step: int) -> None:
        """The optimizer has stepped in spite of what was seen: no scaler has skipped it."""
        found = self._tentative or self._at_clipping
        self.begin_step()
        if found is not None:
            self._tell(step, found)

    def check_last_steps(self) -> bool:
        """Whether one of the last steps left weights non-finite; says so, with the step that it was."""
        self._quiet.keep_pending()
        return any(map(self._explain, self._quiet.kept))

    def check_last_pass(self, step: int) -> None:
        """No backward pass will follow: a training may have given up as its loss was not finite."""
        found = self._explain_outcome(list(self._quiet.calls))
        if found is not None:
            self._tell(step, found)

    def _explain(self, aftermath: Aftermath) -> bool:
        """Whether this step left weights non-finite; says so."""
        bad = [p for p in aftermath.bad() if id(p.tensor) not in self._spoilt]
        found = aftermath.explain(bad, self._registry)
        if found is None:
            return False
        if self._unplaced == aftermath.step and found.direction == "backward":
            found = NonFinite(direction="forward", gradients=found.gradients)
        self._tell(aftermath.step, found, self._quiet.batch)
        return True

    def _tell(self, step: int, found: NonFinite, batch: object = None) -> None:
        """Report at the onset only: not again while each step is non-finite."""
        onset = not self.known_bad(step)
        self._last_bad = step
        if onset:
            self._send(step, found, batch)

    def _send(self, step: int, found: NonFinite, batch: object = None) -> None:
        """`batch`: what went into the model; the last that did unless given."""
        batch = batch or self._last_batch() or self._quiet.batch
        self._report(step, msgspec.structs.replace(found, fingerprint=fingerprint(batch)))


def _more_precisely(found: NonFinite, better: NonFinite) -> NonFinite:
    """What a recomputation told of the origin, with the layers that the first pass told of the spread."""
    spread = dict.fromkeys([*better.spread, *found.spread, found.layer])
    spread.pop(better.layer, None)
    count = max(len(spread), found.spread_count)
    return msgspec.structs.replace(better, spread=list(spread), spread_count=count)


def value_of(loss: Any) -> float:
    """The value of a loss on the CPU, NaN where one of several is not finite, 0.0 of what can't be read without
    waiting. For a single number torch's dispatcher isn't called."""
    if type(loss) is not Tensor:
        if isinstance(loss, list | tuple):
            return next((v for v in map(value_of, loss) if not math.isfinite(v)), 0.0)
        if not isinstance(loss, Tensor):
            return 0.0
        loss = local(loss)
    if not loss.is_cpu or not loss.is_floating_point() or loss.layout is not torch.strided:
        return 0.0
    if loss.ndim == 0:
        return float(loss.tolist())
    return 0.0 if bool(torch.isfinite(loss.detach()).all()) else math.nan


def is_on_device(loss: Any) -> bool:
    """Whether a loss is one element on an accelerator."""
    return type(loss) is Tensor and not (loss.is_cpu or loss.is_meta) and loss.numel() == 1


def bad_gradients(parameters: Sequence[Parameter]) -> list[tuple[Parameter, Tensor]]:
    """The parameters whose gradients (on the CPU) are not finite, with these."""
    found = []
    for parameter in parameters:
        gradient = parameter.tensor.grad
        if gradient is not None and gradient.is_cpu:
            if not bool(torch.isfinite(values_of(gradient)).all()):
                found.append((parameter, gradient))
    return found
