"""The functions of `import trainvitals.hooks as tv`, for the one current run of a process."""

import atexit
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainvitals.hooks import settings
from trainvitals.hooks.checks import PreflightError, Report, check
from trainvitals.hooks.reactions import OnFinding, checked
from trainvitals.hooks.run import Run
from trainvitals.hooks.wire.observed import Observed
from trainvitals.hooks.wire.records import EndStatus

_current: Run | None = None
_uncaught: tuple[EndStatus, str] | None = None
_installed = False


def init(
    project: str | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    mode: str | None = None,
    url: str | None = None,
    dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    tags: Iterable[str] | None = None,
    id: str | None = None,
    on_finding: OnFinding | None = None,
) -> Run:
    """Start a run; one that is still open is finished first.

    What is not given comes from `TRAINVITALS_PROJECT`, `_RUN_NAME`, `_MODE`, `_URL`, `_DIR`, `_TOKEN`,
    `_TAGS` and `_RUN_ID`. `mode` is "online" (record and send), "offline" (record only) or "disabled".
    `on_finding` is as in `watch`. Records go to `<dir>/.trainvitals`. The run is a context manager; an exception makes
    it failed.
    Raises ValueError or TypeError for an argument that makes no sense.
    """
    global _current
    reaction = checked(on_finding)
    resolved = settings.resolve(
        project=project,
        name=name,
        config=config,
        mode=mode,
        url=url,
        dir=dir,
        token=token,
        tags=tags,
        id=id,
    )
    if _current is not None:
        _current.finish()
    _install()
    _current = Run(resolved, reaction)
    return _current


def watch(
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
) -> Run:
    """Record the vital signs of `model` while `optimizer` trains it; starts a run where there is none.

    model: a module or several, before or after DDP or torch.compile wrapped them.
    optimizer: one or several; the first one counts the steps. None: those that are seen stepping.
    criterion: a loss module, whose value and targets are then read.
    overhead: share of the step time that samples of layer statistics may take.
    interval: take a sample every so many steps instead.
    include, exclude: globs of layer and parameter names.
    strict: raise errors of the monitoring itself instead of reporting them.
    on_finding: "raise" raises FindingError for a critical finding, at the begin or end of an optimizer's step or in
    `log`; "stop" makes `should_stop` say so; a function is called there with each `Finding`. NaN is told at once, all
    else when the server has found it.

    Raises ValueError or TypeError for an argument that makes no sense; nothing is raised later unless asked for.
    """
    return _run().watch(
        model,
        optimizer,
        criterion=criterion,
        overhead=overhead,
        interval=interval,
        include=include,
        exclude=exclude,
        strict=strict,
        on_finding=on_finding,
    )


def log(values: Mapping[str, Any], step: int | None = None) -> None:
    """Record numbers for the last completed step, or for `step`; starts a run where there is none."""
    run = _current
    if run is None or run.finished:
        run = init()
    run.log(values, step)


def batch(inputs: Any = None, labels: Any = None) -> None:
    """Tell of a batch: its labels give the running label statistics."""
    if _current is not None:
        _current.batch(inputs, labels)


def should_stop() -> bool:
    """Whether a critical finding asks for the end of the training; only under `on_finding="stop"`."""
    return _current is not None and _current.should_stop()


def preflight(
    model: nn.Module,
    batch_or_loader: Any,
    loss_fn: Callable[..., Any] | None,
    optimizer: Optimizer,
    *,
    progress: bool = True,
) -> Report:
    """Check a training before it begins, on copies: wiring, loss, gradients, data, and whether it can learn at all.

    batch_or_loader: a loader, or one batch: (inputs …, target), or a mapping of the model's arguments.
    loss_fn: gets the model's output and the target; None where the output holds its "loss".
    progress: show a bar on a terminal.

    Prints nothing else; `print(report)` shows a table. With a run open, what was found stands on its page, too. The
    model, the optimizer and the random state are afterwards as they were. Raises PreflightError (a ValueError) for
    what cannot be checked at all, and while a model is being watched.
    """
    if _current is not None and _current.watching:
        raise PreflightError("Call preflight before watch(), or after detach(): it trains copies.")
    report = check(model, batch_or_loader, loss_fn, optimizer, progress=progress)
    if _current is not None:
        _current.record(Observed(preflight=report.results))
    return report


def paused() -> AbstractContextManager[None]:
    """What happens inside is no part of the training: another one, a probe, an evaluation with gradients.

        with tv.paused():
            probe(model)

    Nothing of it is seen, its steps and its time don't count, and torch is as if nothing were watched. Afterwards the
    watch goes on where it stopped.
    """
    return nullcontext() if _current is None else _current.paused()


def detach() -> None:
    """Take every hook off; the run stays open for `log`."""
    if _current is not None:
        _current.detach()


def finish(status: EndStatus = "finished", message: str = "") -> None:
    """End the current run and deliver what is left, for at most 10 seconds."""
    if _current is not None:
        _current.finish(status, message)


def current_run() -> Run | None:
    """The run that the functions of this module speak to."""
    return _current


def _run() -> Run:
    if _current is None or _current.finished:
        return init()
    return _current


def _install() -> None:
    """Once for the process: end the run when the process ends, and drop it in forked children."""
    global _installed
    if _installed:
        return
    _installed = True
    atexit.register(_finish_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
    previous = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        global _uncaught
        if isinstance(error, KeyboardInterrupt):
            _uncaught = ("interrupted", "KeyboardInterrupt")
        else:
            _uncaught = ("failed", f"{kind.__name__}: {error}")
        previous(kind, error, trace)

    sys.excepthook = excepthook


def _finish_at_exit() -> None:
    status, message = _uncaught or ("finished", "")
    finish(status, message)


def _forget() -> None:
    global _current
    if _current is not None:
        _current.forget()
        _current = None
