"""The life of a step: what is attached, when statistics are taken, when a record is complete."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainvitals.hooks.accounts import Accounts, OwnWork
from trainvitals.hooks.attached import Attached
from trainvitals.hooks.backwardwatch import BackwardWatch
from trainvitals.hooks.calibration import quiet_cost
from trainvitals.hooks.callwatch import CallWatch
from trainvitals.hooks.changes import Changes
from trainvitals.hooks.closures import Closures
from trainvitals.hooks.criteria import Criteria
from trainvitals.hooks.draft import Draft, Emitter
from trainvitals.hooks.drafts import Drafts
from trainvitals.hooks.guard import Guard
from trainvitals.hooks.interception import Interception
from trainvitals.hooks.light import Seldom
from trainvitals.hooks.loader import DataWait
from trainvitals.hooks.observe.looks import looks_of
from trainvitals.hooks.observe.observer import Observer
from trainvitals.hooks.observe.peers import Peers
from trainvitals.hooks.optimizers import Optimizers, has_closure
from trainvitals.hooks.pace import Pace
from trainvitals.hooks.parameterlook import ParameterLook
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.quiet import Quiet, watched_step
from trainvitals.hooks.registry import Registry
from trainvitals.hooks.rehearsal import Rehearsal
from trainvitals.hooks.scaler import ScalerWatch
from trainvitals.hooks.sharded import Shards
from trainvitals.hooks.taps import Taps
from trainvitals.hooks.timetable import Timetable
from trainvitals.hooks.uncompiled import uncompiled
from trainvitals.hooks.wire.records import NonFinite


class Watch:
    """Everything that one run has attached to this process.

    Most steps are quiet: calls of modules are noted for the guard, the loss and the weights are looked at, and
    nothing is recorded. In a step that is looked at, a sample or a glance, the same places do more.
    """

    def __init__(
        self,
        emitter: Emitter,
        problems: Problems,
        report: Callable[[int, NonFinite], None],
        background: Callable[[], float],
        light: bool = False,
        meeting: str = "",
        has_peers: bool = False,
    ) -> None:
        """`report` sends a non-finite finding at once; `background`: processor seconds of our own threads; `light`:
        watch for those findings only, as rank 0 records the statistics; `meeting`: a name that all ranks know, where
        they look together at a model that is sharded over them; `has_peers`: other ranks train, too.
        """
        self._emitter = emitter
        self._problems = problems
        self.registry = Registry(outputs=not light, parameters=not light or meeting != "")
        self.criteria = Criteria()
        self._optimizers = Optimizers(self.registry)
        self.quiet = Quiet()
        self.guard = Guard(self.registry, self.quiet, report)
        self._closures = Closures(self.guard)
        self.accounts = Accounts(background)
        self._looking_at_gradients = OwnWork("looking at gradients", self.accounts, problems)
        self._finishing = OwnWork("finishing a step", self.accounts, problems)
        self._taps = Taps(emitter.rows["activation"])
        self._calls = CallWatch(
            self.registry, self.quiet, self.criteria, self._taps, self.accounts, problems
        )
        self.observer = Observer(
            self.registry,
            lambda: self._optimizers.known,
            self.criteria.see_observed,
            emitter.emit,
            lambda: self.completed,
            self._interrupted,
            self.accounts,
            problems,
            Peers(self.registry) if has_peers else None,
        )
        self._data_wait = DataWait(self._see_loaded)
        self._scaler = ScalerWatch(emitter.emit, lambda: self.completed, problems)
        self._shards = Shards(meeting, emitter.rows["parameter"], problems)
        self._timetable = Timetable(
            self._shards.pace if meeting else Seldom() if light else Pace(),
            looks_of(light, meeting != "", has_peers),
            self.accounts.without_looks,
        )
        self._parameters = ParameterLook(self.registry, self._optimizers, emitter.rows["parameter"])
        self._rehearsal = Rehearsal(self.registry, self._optimizers, self.accounts)
        self._drafts = Drafts(self._optimizers, self._parameters, self._shards, emitter)
        self._backward = BackwardWatch(
            self.registry,
            self.guard,
            self._closures,
            self.quiet,
            self._timetable.pace,
            self._parameters,
            problems,
            lambda: self.completed,
            lambda used: self._optimizers.place_of_loss(used, self.completed),
            self._look_now,
        )
        self._interception = Interception(
            self.quiet,
            self._backward.pass_by,
            self._backward.before,
            self._backward.after,
            self._backward.before_grad,
            self._before_clipping,
            self._backward.before_norm_clipping,
            self.observer.see_evaluation,
        )
        self._changes = Changes(
            self.registry,
            self._optimizers,
            self.quiet,
            emitter.rows["parameter"],
            self._models_changed,
        )
        self._attached = Attached(
            self._before_step,
            watched_step(self.quiet, self._after_step),
            (self._interception, self._changes, self._data_wait, self._scaler),
        )
        self._first = 0

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
        """Watch these from now on, besides what is watched already; after `detach` go on counting steps."""
        for model in models:
            self.registry.add(model, include, exclude)
        self.observer.watch(models)
        self._optimizers.name(optimizers, models, self.completed > self._first)
        if criterion is not None:
            self.criteria.add(criterion)
        self._timetable.resume(pace, self.completed)
        self._optimizers.forget_members()
        self._changes.follow()
        self._tell_of_strangers(optimizers)
        self.guard.resize()
        if not self._attached:
            self._attached.put()
            if self.accounts.quiet_cost is None:
                self.accounts.quiet_cost = quiet_cost(
                    self._interception, self.registry, self._optimizers
                )
            self.accounts.start(self.completed)
            self._shards.join(self.registry)
        self._begin_step()
        self._calm_down()

    def _tell_of_strangers(self, optimizers: Sequence[Optimizer]) -> None:
        for optimizer in optimizers:
            if not self._optimizers.members(optimizer):
                self._problems.note(
                    f"watch was given an optimizer, {type(optimizer).__name__}, that holds no parameter of the watched "
                    "models: its steps are not counted unless it is given one. Watch the model whose it holds."
                )

    def resume_at(self, step: int) -> None:
        """Count on from `step`; only before the first step."""
        if self.completed == self._first:
            self.quiet.completed = self._first = self.accounts.begin = step
            self._timetable.resume_at(step)
            self._begin_step()
            self._calm_down()

    @property
    def completed(self) -> int:
        """Steps completed so far: the index of the step that is being prepared."""
        return self.quiet.completed

    @property
    def last(self) -> int | None:
        """The last step that was completed; None before the first."""
        return self.completed - 1 if self.completed > self._first else None

    @property
    def attached(self) -> bool:
        """Whether steps are being counted: between `add` and `detach`."""
        return bool(self._attached)

    @property
    def waited(self) -> float:
        """Seconds that the training has waited for its data so far."""
        return self._data_wait.total

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See nothing, and count no time; the step under way goes on afterwards. Not to be left after `detach`."""
        with self.accounts.stopped(), self.observer.aside(), self._attached.aside():
            yield

    def detach(self) -> None:
        """Take everything off again, whatever goes wrong; the training goes on as if nothing had been there."""
        try:
            self._look_back()
        finally:
            self.drop()
        self._emitter.poll(wait=True)

    def _look_back(self) -> None:
        """Nothing more will tell how the last steps went, or come of what is held."""
        self._drafts.emit_held()
        if self.completed > self.accounts.begin:
            self.accounts.enter()
            span = self.accounts.close(self.completed, self._calls.count, self._calls.in_rows)
            self._timetable.pace.earn(span.training, span.always)
        self._shards.leave()
        if not self.guard.known_bad(self.completed):
            self.guard.check_last_steps()
            self.guard.check_last_pass(self.completed)
        self._backward.look_at_late_losses(wait=True)
        self.observer.flush()

    def drop(self) -> None:
        """Take every hook off, record nothing more and let go of the models: also right in a forked child."""
        self.observer.forget()  # first, as what it replaced lies over what the interception did
        self._attached.take_back()
        self._end_look()
        self.guard.forget()
        self.quiet.end()
        self.registry.clear()
        self._optimizers.clear()
        self.criteria.clear()
        self._taps.forget({})
        self._parameters.forget()

    # Step boundaries

    def _begin_step(self) -> None:
        """Prepare for the step of index `completed`."""
        if self._drafts.current is not None:
            self._end_look()
        if self.completed < self._timetable.next_step:
            self._drafts.begin(None)
            self._interception.send_calls_to(*self._calls.in_quiet_step())
            return
        sampled, observed = self._timetable.kind(self.completed)
        self.criteria.begin_step(sampled)
        draft = Draft(self.completed, sampled)
        self._drafts.begin(draft)
        self.quiet.on = False
        self._backward.begin_look(carried=observed and self.completed > 0)
        self._parameters.sums = self._shards.begin(sampled)
        if sampled:
            self._taps.begin(draft, self._timetable.with_histograms)
        take, slim = self._calls.in_sample() if sampled else self._calls.in_glance()
        if observed:
            self.observer.begin()
            take, slim = self.observer.seeing(take), {}
        self._interception.send_calls_to(take, slim)

    def _calm_down(self) -> None:
        """Leave the step under way to the flat functions of `quiet`, unless there is more to do in it."""
        calm = self.guard.is_calm and not self._changes.pending
        next_pass = self._timetable.next_pass(self.completed, calm)
        if calm and self._drafts.empty and not self._backward.learns_order:
            self.quiet.begin(self._optimizers.primary_aftermath(), next_pass)

    def _look_now(self) -> None:
        """The loss stands out: see at least the gradients and the update of the step under way."""
        if self._drafts.current is None and self.completed >= self._timetable.pace.next_step:
            self._begin_step()

    def _interrupted(self) -> None:
        """An evaluation begins: the training goes on after it in whatever state it leaves the model."""
        self._timetable.interrupted(self.completed)
        self.quiet.next_look = min(self.quiet.next_look, self._timetable.next_step)

    def _end_look(self) -> None:
        self._drafts.current = None
        self.observer.end()
        self._backward.end_look()
        self._parameters.clear(but=self._drafts.held)
        self._taps.end()

    def _see_loaded(self, iterator: Any, batch: Any) -> None:
        self.observer.see_loaded(iterator, batch)
        self._backward.see_loaded()

    # Parameters

    def _before_clipping(self, gradients: Any) -> None:
        """Gradients are about to be clipped: the last moment at which they are as backward left them."""
        if self._drafts.empty:
            return
        with self._looking_at_gradients, self._shards.failing:
            optimizers = self._optimizers.holding(gradients)
            self._drafts.clipped(optimizers)
            for optimizer in optimizers:
                if not self._drafts.is_behind(optimizer):
                    self._look_at_gradients(optimizer, self._drafts.of(optimizer))

    @uncompiled
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.quiet.on:
            if not self._closures.repeated:
                return
            self.quiet.on = False
        if has_closure(args, kwargs):
            self._closures.begin(self._optimizers.aftermaths.get(id(optimizer)))
        if self._drafts.empty:
            if self._changes.pending:
                with self._looking_at_gradients:
                    self._changes.follow()
            return
        with self._looking_at_gradients, self._shards.failing:
            self._rehearsal.before_step()
            if self.registry.on_meta:  # what trains now has taken the place of these parameters
                self._changes.follow()
            if self._optimizers.begin(optimizer) and not self._drafts.is_behind(optimizer):
                if self._drafts.held is not None and self._optimizers.is_primary(optimizer):
                    self._drafts.emit_held()
                closure = has_closure(args, kwargs)
                look = self._look_at_weights if closure else self._look_at_gradients
                look(optimizer, self._drafts.of(optimizer))
        self.observer.see_step(optimizer)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._closures.end()
        if not self._drafts.empty:
            self._after_look(optimizer, args, kwargs)
        else:
            try:
                self._keep(optimizer)
            except Exception as error:
                self._problems.caught("finishing a step", error)
        self._calm_down()

    def _keep(self, optimizer: Optimizer) -> None:
        fresh = not self.quiet.kept and self.quiet.pending < 0  # a loss came since the last step
        if fresh and self._optimizers.take_over(optimizer):
            self._changes.follow()
        aftermath = self._optimizers.aftermaths.get(id(optimizer))
        if aftermath is None:
            return
        self.guard.stepped(aftermath, self._optimizers.place(optimizer, self.completed))
        if self._optimizers.is_primary(optimizer):
            self._next_step()

    def _next_step(self) -> None:
        self.quiet.completed += 1
        self.guard.forget_calls()
        if self.completed >= self._timetable.next_step:
            self._timetable.wake.begin(self.completed)
            self.guard.begin_step()
            self._begin_step()

    def _after_look(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with self._finishing:
            self._rehearsal.after_step()
            closure, seen = has_closure(args, kwargs), self._optimizers.end(optimizer)
            if not seen and not (closure and self._optimizers.began_unseen(optimizer)):
                return
            if self._drafts.is_behind(optimizer):
                self._keep(optimizer)
                return
            draft = self._drafts.of(optimizer)
            late, apart = self._drafts.is_missing(optimizer), self._backward.passes > 0
            self._optimizers.saw_step(optimizer, late, apart)
            try:
                with self._shards.failing:
                    if closure and seen:
                        self._look_at_gradients(optimizer, draft)
                    elif closure:  # it has moved the weights already
                        self._look_at_norm(optimizer, draft)
                    self._look_at_update(optimizer)
            finally:  # other ranks may be waiting for this one, whatever went wrong
                if self._optimizers.is_primary(optimizer):
                    self._complete()
                else:
                    self._drafts.stepped()

    def _look_at_gradients(self, optimizer: Optimizer, draft: Draft | None) -> None:
        self._look_at_weights(optimizer, draft)
        self._look_at_norm(optimizer, draft)

    def _look_at_norm(self, optimizer: Optimizer, draft: Draft | None) -> None:
        norm = None if draft is None else self._parameters.take_gradients(optimizer, draft)
        if isinstance(norm, float):
            self._timetable.pace.saw_norm(norm)

    def _look_at_weights(self, optimizer: Optimizer, draft: Draft | None) -> None:
        if draft is not None and draft.sampled:
            histograms = self._timetable.with_histograms
            self._changes.follow_before(draft.step, optimizer, self._timetable.follows_models)
            self._parameters.take_weights(optimizer, draft, histograms)
        elif self._changes.pending:
            self._changes.follow()

    def _models_changed(self) -> None:
        """Let go of what is known of the models."""
        self._parameters.forget()
        self._taps.forget(self.registry.layers)
        self._backward.models_changed()
        self.guard.resize()

    def _look_at_update(self, optimizer: Optimizer) -> None:
        spoiled = self._parameters.take_update(optimizer)
        step = self._optimizers.place(optimizer, self.completed)
        self.guard.stepped(self._optimizers.aftermaths.get(id(optimizer)), step)
        if spoiled and not self.guard.known_bad(self.completed):
            self.guard.forget_calls()  # but for the batch, which is this step's
            self.guard.check_last_steps()

    def _complete(self) -> None:
        """The primary optimizer has stepped: close the step and begin the next one."""
        draft = self._drafts.current
        if draft is None:
            self._next_step()
            return
        try:
            with self._shards.failing:
                self._fill(draft)
        finally:
            self._shards.meet(draft, self._timetable.samples)
            self.quiet.completed += 1
            try:
                self._drafts.completed(draft)
            finally:
                self._backward.passes = 0
                self.guard.begin_step()
                self._begin_step()

    def _fill(self, draft: Draft) -> None:
        carried = self._backward.carried()
        if carried is not None:
            draft.scalars["tv/grad_carried"] = carried
        self._taps.finish()
        doubtful = self.guard.doubts or self.guard.known_bad(draft.step)
        if draft.sampled and not doubtful:
            self._learn_what_is_meant()
        draft.scalars.update(self._optimizers.rates())
        draft.scalars.update(self.criteria.scalars())
        if self.completed == self._first:
            self._changes.follow()
        self._timetable.samples += draft.sampled
        self.observer.fill(draft)
        self._close_span(draft)

    def _learn_what_is_meant(self) -> None:
        """The step went well: what was not finite in it was meant."""
        self.registry.harmless.learn(self._taps.nonfinite)
        if self.completed == self._first:
            self.registry.harmless.learn_buffers(self.registry.layers)

    def _close_span(self, draft: Draft) -> None:
        calls, beside = self._calls, self._timetable.wake.seconds(draft.sampled)
        span = self.accounts.close(self.completed + 1, calls.count, calls.in_rows, beside)
        waited = self._data_wait.take()
        if self.completed > self._first:
            draft.scalars["tv/step_time"] = span.wall / span.steps
            draft.scalars["tv/overhead"] = self.accounts.share
        if waited is not None:
            draft.scalars["tv/data_wait"] = waited / span.steps
        self._backward.look_at_late_losses()
        self._timetable.looked(draft, span)
        self._emitter.poll()
