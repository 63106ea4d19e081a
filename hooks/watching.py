"""The life of a step: what is attached, when statistics are taken, when a record is complete."""

from collections.abc import Callable, Sequence
from time import perf_counter, thread_time
from typing import Any

from torch import Tensor, is_grad_enabled, nn
from torch.compiler import is_compiling
from torch.nn.modules.loss import _Loss
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from trainvitals.hooks.carried import CarriedGradients
from trainvitals.hooks.draft import Draft, Emitter
from trainvitals.hooks.gradients import GradientNorm, StepStatistics, all_finite, root_of_squares
from trainvitals.hooks.guard import Guard
from trainvitals.hooks.labels import Labels
from trainvitals.hooks.loader import DataWait
from trainvitals.hooks.optimizers import Optimizers, has_closure
from trainvitals.hooks.pace import Pace
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.taps import Taps
from trainvitals.hooks.wire.records import NonFinite

HISTOGRAM_EVERY = 4
"""Samples for each one with histograms; the first has them."""
_SLOW_CALL = 1e-6
"""Seconds that torch itself takes for calling a module with a global hook rather than without."""


class Watch:
    """Everything that one run has attached to this process."""

    def __init__(
        self, emitter: Emitter, problems: Problems, report: Callable[[int, NonFinite], None]
    ) -> None:
        """`report` sends a step's non-finite finding at once."""
        self._emitter = emitter
        self._problems = problems
        self.registry = Registry()
        self.labels = Labels()
        self.guard = Guard(self.registry, report)
        self._taps = Taps(emitter.rows["activation"])
        self._data_wait = DataWait()
        self._pace = Pace()
        self._criteria: set[nn.Module] = set()
        self._optimizers = Optimizers(self.registry)
        self._handles: list[RemovableHandle] = []
        self._forward_handle: RemovableHandle | None = None
        self._forward_hook: Callable[..., None] | None = None
        self._carried: CarriedGradients | None = None
        self._statistics: dict[int, StepStatistics] = {}
        self.completed = 0
        """Steps completed so far: the index of the step that is being prepared."""
        self._first = 0
        self._samples = 0
        self._refreshed = -1
        self._told_compiled = False
        self._draft = Draft(0)
        self._held: Draft | None = None
        self._norms: dict[int, Number] = {}
        self._losses: list[Number] = []
        self._step_end = self._step_cpu = 0.0
        self._own = 0.0
        # A sample on a busy machine is interrupted by others, whose time is not its cost: samples are charged
        # in processor time, and so is the step that pays for them. Reading that clock is a system call, so the
        # few microseconds of other steps are told by the wall clock.
        self._clock: Callable[[], float] = perf_counter

    # Attaching

    def add(
        self,
        models: Sequence[nn.Module],
        optimizers: Sequence[Optimizer],
        criterion: nn.Module | None,
        pace: Pace,
        include: Sequence[str],
        exclude: Sequence[str],
    ) -> None:
        """Watch these from now on, besides what is watched already."""
        for model in models:
            self.registry.add(model, include, exclude)
        for optimizer in optimizers:
            self._optimizers.add(optimizer)
        if criterion is not None:
            self._criteria.add(criterion)
        self._pace = pace
        self._optimizers.forget_members()
        self._taps.forget(self.registry.layers)
        if not self._handles:
            self._handles = [
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ]
            self._data_wait.attach()
            self._step_end, self._step_cpu = perf_counter(), thread_time()
        self._drop_step_hooks()
        self._begin_step()

    def resume_at(self, step: int) -> None:
        """Count on from `step`; only before the first step."""
        if self.completed == self._first:
            self.completed = self._first = step
            self._drop_step_hooks()
            self._begin_step()

    @property
    def last(self) -> int | None:
        """The last step that was completed; None before the first."""
        return self.completed - 1 if self.completed > self._first else None

    @property
    def waited(self) -> float:
        """Seconds that the training has waited for its data so far."""
        return self._data_wait.total

    def detach(self) -> None:
        """Take everything off again; the training goes on as if nothing had been there."""
        self.drop()
        self.guard.settle()
        self._emit_held()
        self._emitter.poll(wait=True)

    def drop(self) -> None:
        """Take every hook off and record nothing more: also right in a forked child."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._drop_step_hooks()
        self._data_wait.detach()

    def _drop_step_hooks(self) -> None:
        if self._forward_handle is not None:
            self._forward_handle.remove()
            self._forward_handle = self._forward_hook = None
        if self._carried is not None:
            self._carried.remove()
            self._carried = None
        self._taps.end()
        self.guard.release()

    # Step boundaries

    def _begin_step(self) -> None:
        """Prepare for the step of index `completed`."""
        sampled = self._pace.due(self.completed)
        self._clock = thread_time if sampled else perf_counter
        self._draft = Draft(self.completed, sampled)
        self._norms, self._losses = {}, []
        if sampled and not self.registry.compiled:
            self._taps.begin(self._draft, self._with_histograms())
            if self.completed > 0:
                tensors = [parameter.tensor for parameter in self.registry.parameters.values()]
                self._carried = CarriedGradients(tensors)
        self._set_forward_hook(sampled)

    def _with_histograms(self) -> bool:
        return self._samples % HISTOGRAM_EVERY == 0

    def _set_forward_hook(self, sampled: bool) -> None:
        """The one global forward hook: always there where the guard works, else for sampled steps only."""
        self.guard.active = self.registry.on_cpu
        hook: Callable[..., None] | None = self._after_forward if sampled else self._glance
        if self.registry.compiled or not (sampled or self.guard.active or self._criteria):
            hook = None
        if self.registry.compiled and not self._told_compiled:
            self._told_compiled = True
            self._problems.note(
                "the model is compiled, so layer outputs are not sampled; "
                "parameters and gradients are."
            )
        if hook == self._forward_hook:
            return
        if self._forward_handle is not None:
            self._forward_handle.remove()
            self._forward_handle = None
        self._forward_hook = hook
        if hook is not None:
            self._forward_handle = register_module_forward_hook(hook, with_kwargs=True)

    def _glance(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """After each module of a step without samples: as little as can be done."""
        if is_compiling():  # traced into the graph: from the next step on there is no hook any more
            self.registry.compiled = True
            return
        if module in self.registry.layers:
            if is_grad_enabled() and self.guard.collect((module, args, kwargs, output)):
                self._finish_pass(output)
        elif module in self._criteria or isinstance(module, _Loss):
            self._saw_loss(module, args, output)

    def _after_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """After each module of a sampled step."""
        if is_compiling() or not is_grad_enabled() or module not in self.registry.layers:
            return self._glance(module, args, kwargs, output)
        name = self.registry.layers[module]
        clock = self._clock
        begin = clock()
        try:
            self.registry.saw_call(name)
            if module in self.registry.wanted:
                self._taps.see(module, name, output)
        except Exception as error:
            self._problems.caught(f"taking statistics of {name!r}", error)
        self._own += clock() - begin
        if self.guard.collect((module, args, kwargs, output)):
            self._finish_pass(output)

    def _finish_pass(self, output: Any) -> None:
        """An outermost watched module has returned: look at what it returned, and let go of the rest."""
        clock = self._clock
        begin = clock()
        calls = self.guard.call_count
        try:
            self.guard.finish_pass(self.completed, output)
        except Exception as error:
            self._problems.caught("looking for non-finite values", error)
        self._own += clock() - begin + calls * (_SLOW_CALL + self.guard.call_cost)

    def _saw_loss(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A criterion was called: note its value and, of a watched one, the labels."""
        clock = self._clock
        begin = clock()
        try:
            if not isinstance(output, Tensor) or output.numel() != 1 or not is_grad_enabled():
                return
            loss = number(output.detach())
            if isinstance(loss, float):
                self.guard.saw_loss(loss)
            if module in self._criteria:
                self._losses.append(loss)
                if len(args) > 1 and isinstance(args[1], Tensor):
                    self.saw_labels(args[1])
        except Exception as error:
            self._problems.caught("reading the loss", error)
        finally:
            self._own += clock() - begin

    def saw_labels(self, target: Tensor) -> None:
        """Count a batch of labels, as often as the pace allows."""
        if self.labels.wanted(self._draft.sampled):
            self.labels.see(target)

    def charge(self, seconds: float) -> None:
        """Count time that another part of the hooks took in the training's thread."""
        self._own += seconds

    # Optimizer hooks

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        clock = self._clock
        begin = clock()
        try:
            if not self._optimizers.begin(optimizer):
                return
            self.guard.settle()
            if self._held is not None and self._optimizers.is_primary(optimizer):
                self._emit_held()
            self.guard.release()
            draft = self._draft_for(optimizer)
            if draft.sampled:
                self._prepare_statistics(optimizer, draft)
            if not has_closure(args, kwargs):
                self._take_gradients(optimizer)
        except Exception as error:
            self._problems.caught("looking at gradients", error)
        finally:
            self._own += clock() - begin

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        clock = self._clock
        begin = clock()
        try:
            if not self._optimizers.end(optimizer):
                return
            if has_closure(args, kwargs):
                self._take_gradients(optimizer)
            self._check_update(optimizer)
            if self._optimizers.is_primary(optimizer):
                self._complete(begin, clock)
            elif self._held is not None and self._optimizers.all_stepped():
                self._emit_held()
        except Exception as error:
            self._problems.caught("finishing a step", error)
        finally:
            self._own += clock() - begin

    def _draft_for(self, optimizer: Optimizer) -> Draft:
        """The step that this optimizer's step belongs to: the held one, unless it had its turn there."""
        if self._held is not None and not self._optimizers.has_stepped(optimizer):
            return self._held
        return self._draft

    def _prepare_statistics(self, optimizer: Optimizer, draft: Draft) -> None:
        follow = self._samples < 2 or self._with_histograms()
        if follow and self._refreshed != draft.step:
            self._refreshed = draft.step
            self._refresh()
        members = self._optimizers.members(optimizer)
        if self._optimizers.is_primary(optimizer):
            owned = self._optimizers.held()
            spare = [p for key, p in self.registry.parameters.items() if key not in owned]
            members = members + spare
        wanted = [p for p in members if id(p.tensor) in self.registry.wanted_parameters]
        rows = self._emitter.rows["parameter"]
        self._statistics[id(optimizer)] = StepStatistics(
            wanted, rows, draft, self._with_histograms()
        )

    def _refresh(self) -> None:
        """Follow changes of the models and place the parameter rows."""
        if self.registry.refresh():
            self._taps.forget(self.registry.layers)
        self._optimizers.forget_members()
        self.registry.place_parameters(self._emitter.rows["parameter"], self._optimizers.held())

    def _take_gradients(self, optimizer: Optimizer) -> None:
        members = self._optimizers.members(optimizer)
        holders = [parameter for parameter in members if parameter.tensor.grad is not None]
        gradients: list[Tensor] = [p.tensor.grad for p in holders]  # type: ignore[misc]
        scale = getattr(optimizer, "grad_scale", None)
        few = self._optimizers.has_few_elements(optimizer)
        norm = GradientNorm(gradients, scale if isinstance(scale, Tensor) else None, few)
        self._norms[id(optimizer)] = norm.value
        statistics = self._statistics.get(id(optimizer))
        if statistics is not None:
            statistics.take_gradients()
        if isinstance(norm.value, float):
            self._pace.saw_norm(norm.value)
            self.guard.saw_norm(self._draft_for(optimizer).step, norm, holders)

    def _check_update(self, optimizer: Optimizer) -> None:
        statistics = self._statistics.pop(id(optimizer), None)
        spoiled = statistics.finish() if statistics is not None else []
        norm = self._norms.get(id(optimizer), 0.0)
        doubtful = statistics is None and isinstance(norm, float) and self._pace.stands_out(norm)
        if doubtful and not self.guard.known_bad(self._draft_for(optimizer).step):
            tensors = [
                parameter.tensor.detach() for parameter in self._optimizers.members(optimizer)
            ]
            if not all_finite(tensors):
                spoiled = [
                    p.tensor
                    for p in self._optimizers.members(optimizer)
                    if not all_finite([p.tensor.detach()])
                ]
        if spoiled:
            self.guard.saw_update(self._draft_for(optimizer).step, spoiled)

    # Records

    def _complete(self, begin: float, clock: Callable[[], float]) -> None:
        """The primary optimizer has stepped: close the step and begin the next one."""
        draft = self._draft
        if self._carried is not None:
            carried = self._carried.remove()
            self._carried = None
            if carried is not None:
                draft.scalars["tv/grad_carried"] = carried
        self._taps.finish()
        draft.scalars["tv/grad_norm"] = root_of_squares(list(self._norms.values()))
        draft.scalars.update(self._optimizers.rates())
        if self._losses:
            draft.scalars["tv/loss"] = sum(self._losses[1:], self._losses[0]) / len(self._losses)
        if draft.sampled or self.completed < 200:
            draft.scalars.update(self.labels.scalars())
        if self.completed == self._first:
            self._refresh()
        if draft.sampled:
            self._samples += 1
        self.guard.step_done(draft.step)
        self._close_times(draft, begin, clock)
        self.completed += 1
        if self._optimizers.all_stepped():
            self._optimizers.new_round()
            self._emitter.emit(draft)
        else:
            self._held = draft
        self._begin_step()

    def _close_times(self, draft: Draft, begin: float, clock: Callable[[], float]) -> None:
        """`begin`, by `clock`: when the hook that completes the step was called."""
        # What follows in this step is charged to the next one: one step late, nothing is lost.
        own = self._own + clock() - begin
        wall, cpu = perf_counter(), thread_time()
        step_time = wall - self._step_end
        waited = self._data_wait.take()
        if self.completed > self._first:
            draft.scalars["tv/step_time"] = step_time
            draft.scalars["tv/overhead"] = min(own / step_time, 1.0) if step_time > 0 else 0.0
        if waited is not None:
            draft.scalars["tv/data_wait"] = waited
        self._pace.spent(draft.step, cpu - self._step_cpu, own, draft.sampled)
        self._step_end, self._step_cpu = wall, cpu
        self._own = begin - clock()  # the caller adds the whole hook; its first part is booked
        self._emitter.poll()

    def _emit_held(self) -> None:
        held, self._held = self._held, None
        self._optimizers.new_round()
        if held is not None:
            self._emitter.emit(held)
