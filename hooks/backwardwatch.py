"""What is looked at round every backward pass: the loss, and at samples the gradients that are there already."""

import math
from collections.abc import Callable
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from trainvitals.hooks.call import Call
from trainvitals.hooks.carried import CarriedGradients
from trainvitals.hooks.closures import Closures
from trainvitals.hooks.guard import Guard, value_of
from trainvitals.hooks.interception import is_faking
from trainvitals.hooks.leaves import leaves
from trainvitals.hooks.lossvalues import LossValues
from trainvitals.hooks.pace import Pace
from trainvitals.hooks.parameterlook import ParameterLook
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.quiet import Quiet
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.registry import Registry, every_tensor, local

_current_autograd_node: Callable[[], Any] = torch._C._current_autograd_node


class BackwardWatch:
    """Tells the guard of losses and gradient norms that are not finite, and the pace of what stands out.

    Its methods are called from within torch's functions and never raise.
    """

    def __init__(
        self,
        registry: Registry,
        guard: Guard,
        closures: Closures,
        quiet: Quiet,
        pace: Pace,
        parameters: ParameterLook,
        problems: Problems,
        step: Callable[[], int],
        place: Callable[[set[int]], int],
        look_now: Callable[[], None],
    ) -> None:
        """`step` gives the index of the step under way; `place` that of a loss which depends on tensors of these ids,
        which may be the one before; `look_now` looks at it from here on, if the pace wants."""
        self._registry = registry
        self._guard = guard
        self._closures = closures
        self._pace = pace
        self._parameters = parameters
        self._problems = problems
        self._step = step
        self._place = place
        self._look_now = look_now
        self._losses = LossValues(quiet)
        self._carried: CarriedGradients | None = None
        self._learns_in = -1
        """The step in which it is learnt which layer backward meets first: the first one looked at, or the one after
        that in which the models changed."""
        self.passes = 0
        """Backward passes that were looked at since somebody set this to 0."""
        self._retained = False
        """Whether the graph of the backward pass under way is."""
        self._thread = get_ident()
        """The one that trains what is watched, as far as is known."""

    def begin_look(self, carried: bool) -> None:
        """The step that begins is looked at; if `carried`, whether gradients of the last one are still there."""
        if not self._registry.uses:
            self._learns_in = self._step()
        parameters = self._registry.parameters.values() if carried else ()
        self._carried = CarriedGradients([p.tensor for p in parameters if not is_lazy(p.tensor)])

    def models_changed(self) -> None:
        """In the step under way: in the next one it is learnt again which layer backward meets first."""
        self._learns_in = self._step() + 1

    @property
    def learns_order(self) -> bool:
        """Whether that is so in the step under way, with all of its losses."""
        return self._learns_in == self._step()

    def carried(self) -> Number | None:
        """`tv/grad_carried` of the step, if it was looked at."""
        result = self._carried.result() if self._carried is not None else None
        return number(result) if result is not None else None

    def end_look(self) -> None:
        """The step that was looked at is over, in the thread that trains; its loss is one of the usual ones."""
        self._thread = get_ident()
        self._carried = None
        self._losses.learn()

    def pass_by(self, loss: Tensor) -> None:
        """A usual loss, in a step that nobody looks at."""
        if self._guard.skipped.possible:
            self._look_for_skipped(lambda: self._guard.skipped.before(loss))
        self._guard.let_go()

    def see_loaded(self) -> None:
        """The training goes on to a batch, maybe without a backward pass from the last ones."""
        if self._guard.skipped.many:
            self._look_for_skipped(self._guard.skipped.so_far)

    def _look_for_skipped(self, find: Callable[[], list[Call] | None]) -> None:
        try:
            calls = find()
            if calls is not None:
                step = self._place(leaves(list(every_tensor(calls[-1][3]))))
                self._guard.saw_skipped(step, calls)
        except Exception as error:
            self._problems.caught("looking for skipped batches", error)

    def before(self, tensors: Any, retained: bool) -> bool:
        """A backward pass is about to begin from these, whose graph may be `retained`; whether there is something to
        look at after it. One inside of another is that of a checkpoint, for the part that it has computed again."""
        if is_faking():
            return False
        outer = _current_autograd_node()
        if outer is not None:
            self._look_inside(outer, tensors)
            return False
        ours = get_ident() == self._thread or self._is_ours(tensors)
        if ours:
            self._look(tensors, retained)
        return ours

    def _look_inside(self, checkpoint: Any, tensors: Any) -> None:
        if self.learns_order:
            try:
                self._registry.uses.learn_inside(checkpoint, tensors)
            except Exception as error:
                self._problems.caught("looking at a checkpoint", error)

    def _look(self, tensors: Any, retained: bool) -> None:
        try:
            if self._guard.doubts and self._has_no_gradients():
                self._guard.begin_step()  # the step that they were about was skipped
            self.passes += 1
            value = self._losses.see(self._step, tensors)
            if value is None or math.isfinite(value):
                self._look_for_skipped(lambda: self._guard.skipped.before(tensors))
            if value is not None:
                self._stands_out(tensors, value)
            if self.learns_order:
                self._registry.uses.learn(tensors)
            if self._carried is not None:
                if self._parameters.untried and self._has_no_gradients():
                    self._parameters.forget_untried(self._step())
                self._carried.before()
        except Exception as error:
            self._problems.caught("looking at the loss", error)
        self._retained = retained
        self._guard.let_go(retained)

    def before_grad(self, outputs: Any) -> None:
        """`torch.autograd.grad` is about to differentiate these."""
        if is_faking():
            return
        try:
            bad = not math.isfinite(value_of(outputs))
            if get_ident() != self._thread and not self._is_ours(outputs):
                return
            if bad:
                self._stands_out(outputs, math.nan)
            else:  # the pass may go on after it, so that its calls are still of use
                self._guard.steps_went_well()
        except Exception as error:
            self._problems.caught("looking at the loss", error)

    def _stands_out(self, tensors: Any, value: float) -> None:
        if math.isfinite(value):
            self._pace.anomaly()
        else:
            self._guard.saw_bad_loss(self._place(leaves(tensors)), tensors)
            self._pace.anomaly(finite=False)
        self._look_now()

    def _is_ours(self, tensors: Any) -> bool:
        """Whether a backward pass in another thread reaches watched parameters: then the training has moved there."""
        if not leaves(tensors).isdisjoint(self._registry.parameters):
            self._thread = get_ident()
        return get_ident() == self._thread

    def _has_no_gradients(self) -> bool:
        gradients = [parameter.tensor.grad for parameter in self._registry.parameters.values()]
        return not any(
            gradient is not None and bool(local(gradient).any()) for gradient in gradients
        )

    def after(self) -> None:
        """The backward pass is over."""
        if get_ident() != self._thread:
            return
        try:
            self._guard.after_backward(self._retained)
            self._closures.evaluated(self._step())
            if self._carried is not None:
                self._carried.after()
        except Exception as error:
            self._problems.caught("looking for non-finite values", error)

    def before_norm_clipping(self, total_norm: Any) -> None:
        """Gradients are about to be clipped to a norm; a bad one spoils all of them."""
        try:
            if not value_of(total_norm) < math.inf and not self._guard.known_bad(self._step()):
                self._guard.saw_bad_norm(list(self._registry.parameters.values()))
        except Exception as error:
            self._problems.caught("looking at the gradient norm", error)

    def look_at_late_losses(self, wait: bool = False) -> None:
        """See what a device has delivered of its losses by now; with `wait`, all of them."""
        for step in self._losses.late_bad_steps(wait):
            self._guard.saw_late_bad_loss(step)
            self._pace.anomaly(finite=False)
