"""One run: what `tv.init` returns."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec
import torch
from torch import Tensor, nn

from trainvitals.hooks import arguments, spool
from trainvitals.hooks.attached import in_hook
from trainvitals.hooks.draft import Emitter
from trainvitals.hooks.ensemble import is_sharded
from trainvitals.hooks.light import Brief
from trainvitals.hooks.listener import Listener
from trainvitals.hooks.logbook import Logbook
from trainvitals.hooks.logged import LoggedHistograms
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.reactions import OnFinding, Reactions, checked
from trainvitals.hooks.recorder import Recorder
from trainvitals.hooks.sender import Sender, say
from trainvitals.hooks.settings import (
    RunSettings,
    clean_config,
    clean_name,
    clean_text,
    environment,
)
from trainvitals.hooks.system import SystemMonitor
from trainvitals.hooks.watching import Watch
from trainvitals.hooks.wire.observed import Observed
from trainvitals.hooks.wire.records import EndStatus, NonFinite

if TYPE_CHECKING:
    from trainvitals.hooks.show import Shown

DELIVERY_SECONDS = 10.0
"""How long `finish` waits for the server at most."""


class Run:
    """A training that is being recorded. All methods are meant for the thread that trains.

    In mode "disabled" (and on ranks that record nothing) every method does nothing.
    """

    def __init__(self, settings: RunSettings, on_finding: OnFinding | None = None) -> None:
        """Opens the spool and starts to send, both in threads of their own."""
        self._settings = settings
        self._reactions: Reactions | None = None
        self._listener: Listener | None = None
        self._problems = Problems(self._send_problem)
        self._pid = os.getpid()
        self.finished = False
        """Whether the run has ended."""
        self._light = settings.rank > 0
        """Whether rank 0 records the statistics, and this rank only events and what ranks are compared by."""
        self._recorder: Recorder | None = None
        self._sender: Sender | None = None
        self._emitter: Emitter | None = None
        self._logbook: Logbook | None = None
        self._watch: Watch | None = None
        self._pause: ExitStack | None = None
        """Ends the one that is under way."""
        self._histograms: LoggedHistograms | None = None
        self._system: SystemMonitor | None = None
        if settings.mode != "disabled" and self._may_record():
            self._open()
            self._react_by(on_finding)

    def _may_record(self) -> bool:
        if self._settings.rank == 0 or self._settings.agreed:
            return True
        say(
            f"rank {self._settings.rank} records nothing: it has no run id in common with rank 0. Start the run "
            "after init_process_group, or set TRAINVITALS_RUN_ID to the same id on all ranks."
        )
        return False

    def _open(self) -> None:
        chosen = self._settings
        online = chosen.mode == "online"
        meta = spool.Meta(
            run=chosen.run,
            attempt=chosen.attempt,
            rank=chosen.rank,
            url=chosen.url if online else "",
        )
        try:
            writer = spool.SpoolWriter(chosen.folder, meta)
        except OSError as error:
            say(f"cannot write {chosen.folder}: {error.strerror or error}; nothing is recorded.")
            return
        self._recorder = Recorder(writer)
        self._emitter = (Brief if self._light else Emitter)(self._recorder)
        self._logbook = None if self._light else Logbook(self._emitter, self._problems)
        self._recorder.start(
            project=chosen.project,
            name=chosen.name,
            config=chosen.config,
            tags=chosen.tags,
            world_size=chosen.world_size,
            environment=environment(),
        )
        self._recorder.flush()
        if not self._light:
            self._histograms = LoggedHistograms(self._recorder, self._problems)
            self._system = SystemMonitor(self)
        if online:
            page = "" if self._light else self.url
            self._sender = Sender(writer.folder, meta, chosen.token, page, chosen.keep)

    def _react_by(self, on_finding: OnFinding | None) -> None:
        """Do so with findings from now on. The server's are asked for by rank 0."""
        if on_finding is None or self._recorder is None:
            return
        if self._reactions is not None:
            self._reactions.asked = on_finding
            return
        self._reactions = Reactions(on_finding)
        if self._sender is not None and not self._light:
            chosen = self._settings
            self._listener = Listener(
                chosen.url, chosen.token, chosen.run, self._reactions.offer, self._problems.note
            )

    def should_stop(self) -> bool:
        """Whether a critical finding asks for the end, under `on_finding="stop"`."""
        return self._reactions is not None and self._alive() and self._reactions.should_stop()

    @property
    def id(self) -> str:
        """The run's id, as in its page's address."""
        return self._settings.run

    @property
    def url(self) -> str:
        """Address of the run's page; "" unless the run is online."""
        if self._settings.mode != "online":
            return ""
        return f"{self._settings.url}/runs/{self._settings.run}"

    def show(self, height: int = 720) -> "Shown":
        """The run's report as it is now, for the last line of a notebook's cell; `height` in pixels."""
        from trainvitals.hooks.show import Shown  # with what it takes to ask a server; few need it

        return Shown(self.url, self._settings.token or "", height)

    @property
    def recording(self) -> bool:
        """Whether records are being written."""
        return self._recorder is not None and not self.finished

    def watch(
        self,
        model: nn.Module | Sequence[nn.Module],
        optimizer: Any = None,
        *,
        criterion: nn.Module | None = None,
        overhead: float = 0.01,
        interval: int | None = None,
        include: Sequence[str] | str = (),
        exclude: Sequence[str] | str = (),
        strict: bool = False,
        on_finding: OnFinding | None = None,
    ) -> Self:
        """Record the vital signs of `model` while `optimizer` trains it. `tv.watch` says it in full."""
        asked = arguments.check(
            model,
            optimizer,
            criterion=criterion,
            overhead=overhead,
            interval=interval,
            include=include,
            exclude=exclude,
        )
        reaction = checked(on_finding)
        if self._emitter is None or not self._alive():
            return self
        self._end_pause()
        self._problems.strict = strict
        self._react_by(reaction)
        if self._needs_hooks and in_hook():
            self._problems.note(
                "watch was called by a hook of an optimizer's step, where torch takes no other hook. Nothing more is "
                "watched: call it before the step or after it."
            )
            return self
        if self._watch is None:
            parameters = (p for model in asked.models for p in model.parameters())
            self._watch = Watch(
                self._emitter,
                self._problems,
                self._send_nonfinite,
                self._background_seconds,
                self._light,
                f"{self.id}/{self._settings.attempt}" if any(map(is_sharded, parameters)) else "",
                self._settings.world_size > 1,
            )
        if self._reactions is not None:
            self._reactions.before_watching()
        self._watch.add(
            asked.models,
            asked.optimizers,
            criterion,
            asked.pace,
            asked.include,
            asked.exclude,
        )
        if self._reactions is not None:
            self._reactions.after_watching()
        return self

    @property
    def _needs_hooks(self) -> bool:
        """Whether to watch takes hooks that are not there yet."""
        watches = self._watch is not None and self._watch.attached
        return not watches or (self._reactions is not None and not self._reactions.attached)

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Record numbers for the last completed step, or for `step`.

        Takes floats, ints, NumPy scalars and one-element tensors; a tensor on a device is read when it is
        there, without waiting. A key that was logged before the first step was complete keeps belonging to
        the step that is being prepared: that is what logging before `optimizer.step()` means.
        """
        if self._logbook is None or self.finished:  # which a forked child is, too: see `forget`
            return
        watch = self._watch
        begin = perf_counter()
        try:
            self._logbook.take(values, step, watch.quiet.completed if watch is not None else 0)
        except Exception as error:
            self._problems.caught("log", error)
        if watch is not None:
            watch.accounts.aside += perf_counter() - begin
        if self._reactions is not None:
            self._reactions.react()

    @property
    def step(self) -> int | None:
        """The last step that was completed or logged for; None before the first."""
        completed = self._watch.last if self._watch is not None else None
        logged = self._logbook.last if self._logbook is not None else None
        return max((step for step in (completed, logged) if step is not None), default=None)

    @property
    def completed(self) -> int:
        """Steps completed so far, by the count of the first watched optimizer."""
        return self._watch.completed if self._watch is not None else 0

    @property
    def watching(self) -> bool:
        """Whether a model is being watched: then its optimizer counts the steps."""
        return self._watch is not None and self._watch.attached

    def resume_at(self, step: int) -> None:
        """Count the steps from `step` on: for a training that goes on from a checkpoint, right after `watch`."""
        if self._watch is not None and self._alive():
            self._watch.resume_at(step)

    def configure(self, values: Mapping[str, Any]) -> None:
        """Add to the run's configuration what was not known when it began."""
        if self._recorder is not None and self._alive():
            self._recorder.event(step=self.step or 0, kind="config", data=clean_config(values))

    def log_histogram(self, name: str, values: Any, step: int | None = None) -> None:
        """Record how the elements of a tensor or array are distributed, at the last step or at `step`."""
        if self._histograms is None or not self._alive():
            return
        place = max((self.step or 0) if step is None else step, 0)
        try:
            self._histograms.add(clean_name(name), values, place)
        except Exception as error:
            self._problems.caught("log_histogram", error)

    def report(self, step: int, scalars: dict[str, float]) -> None:
        """Record scalars of the hooks' own, from any thread."""
        if self._recorder is not None and self._alive():
            self._recorder.step(step=step, scalars=scalars)

    def record(self, observed: Observed) -> None:
        """Record what was seen of the training besides its steps."""
        if self._recorder is not None and self._alive():
            self._recorder.step(step=self.completed, observed=observed)

    @property
    def waited(self) -> float | None:
        """Seconds that the training has waited for its data so far; None while nothing is watched."""
        return self._watch.waited if self._watch is not None else None

    def batch(self, inputs: Any = None, labels: Any = None) -> None:
        """Tell of a batch: its labels give the running label statistics. Never waits for a device."""
        if self._watch is None or self._light or not self._alive() or labels is None:
            return
        if self._pause is not None:  # another training's
            return
        begin = perf_counter()
        try:
            target = labels if isinstance(labels, Tensor) else torch.as_tensor(labels)
            self._watch.criteria.see_labels(target)
            self._watch.observer.tell_labels(target)
        except Exception as error:
            self._problems.caught("batch", error)
        self._watch.accounts.aside += perf_counter() - begin

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is no part of the training: another training, a probe, an evaluation with gradients.

        Nothing of it is seen, its steps and its time don't count, and torch is as if nothing were watched. `log` works.
        Afterwards the watch goes on where it stopped. To `watch`, `detach` or `finish` inside ends the pause.
        """
        watch = self._watch
        if watch is None or not watch.attached or self._pause is not None or not self._alive():
            yield
            return
        self._pause = ExitStack()
        try:
            self._pause.enter_context(watch.paused())
            if self._reactions is not None:
                self._pause.enter_context(self._reactions.aside())
            yield
        finally:
            self._end_pause()

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.close()
            self._pause = None

    def detach(self) -> None:
        """Stop watching and take every hook off; the run stays open for `log` and for `watch` again."""
        self._end_pause()
        if self._reactions is not None:
            self._reactions.detach()
        if self._watch is not None and self._pid == os.getpid():
            try:
                self._watch.detach()
            except Exception as error:
                self._problems.caught("detach", error)

    def finish(self, status: EndStatus = "finished", message: str = "") -> None:
        """End the run and deliver what is left, for at most 10 seconds. A second call does nothing."""
        if self.finished or self._pid != os.getpid():
            return
        step = max(self._watch.completed - 1, 0) if self._watch is not None else 0
        self.detach()
        self.finished = True
        if self._listener is not None:
            self._listener.close()
        if self._recorder is None:
            return
        if self._emitter is not None:
            self._emitter.poll(wait=True)
        if self._system is not None and self._histograms is not None:
            self._system.stop()
            self._histograms.flush()
        self._recorder.end(step=step, status=status, message=clean_text(message))
        self._recorder.close()
        if self._sender is not None:
            self._sender.close(DELIVERY_SECONDS)

    def forget(self) -> None:
        """Do nothing any more: this is a forked child, whose parent records."""
        self.finished = True
        self._end_pause()
        self._recorder = self._sender = self._emitter = self._logbook = None
        if self._reactions is not None:
            self._reactions.detach()
        self._reactions = self._listener = None
        if self._watch is not None:
            self._watch.drop()
            self._watch = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish("interrupted", "KeyboardInterrupt")
        else:
            self.finish("failed", f"{type(error).__name__}: {error}")

    def _background_seconds(self) -> float:
        """Processor time that the threads of this run have taken so far."""
        threads = (self._recorder, self._sender, self._system, self._listener)
        return sum(thread.processor_seconds for thread in threads if thread is not None)

    def _alive(self) -> bool:
        return not self.finished and self._pid == os.getpid()

    def _send_problem(self, message: str) -> None:
        if self._recorder is not None:
            step = self._watch.completed if self._watch is not None else 0
            self._recorder.event(step=step, kind="monitor", message=message)

    def _send_nonfinite(self, step: int, found: NonFinite) -> None:
        if self._reactions is not None:
            self._reactions.offer_nonfinite(step, found)
        if self._recorder is not None:
            self._recorder.event(
                urgent=True,
                step=step,
                kind="nonfinite",
                layer=found.layer,
                data=msgspec.to_builtins(msgspec.structs.replace(found, rank=self._settings.rank)),
            )
