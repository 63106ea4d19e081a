"""What all integrations share: the run they speak to, and the library that they need."""

import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypedDict

from torch import nn

from trainvitals.hooks import api
from trainvitals.hooks.launch import new_run_id, rank_and_world
from trainvitals.hooks.reactions import OnFinding
from trainvitals.hooks.run import Run
from trainvitals.hooks.wire.records import EndStatus


class InitOptions(TypedDict, total=False):
    """Arguments of `tv.init`."""

    project: str | None
    name: str | None
    mode: str | None
    url: str | None
    dir: str | os.PathLike[str] | None
    token: str | None
    tags: Iterable[str] | None
    id: str | None


class Options(InitOptions, total=False):
    """Arguments of `tv.init` and of `tv.watch`."""

    criterion: nn.Module | None
    overhead: float
    interval: int | None
    include: Sequence[str] | str
    exclude: Sequence[str] | str
    strict: bool
    on_finding: OnFinding | None


class Session:
    """One run as an integration sees it: who starts it ends it.

    A run that is open already is used and left open. Only rank 0 speaks; where `TRAINVITALS_RUN_ID` names the
    run for all ranks, the others watch their part of the model, too.
    """

    def __init__(self, options: Options) -> None:
        """Raises TypeError for an option that there is none of. Starts nothing."""
        unknown = options.keys() - Options.__annotations__.keys()
        if unknown:
            raise TypeError(f"There is no option {min(unknown)!r}.")
        given: dict[str, Any] = {**options}
        self._init = {key: given.pop(key) for key in InitOptions.__annotations__ if key in given}
        self._watch = given
        self.project = str(
            self._init.get("project") or os.environ.get("TRAINVITALS_PROJECT") or "default"
        )
        self._id = str(
            self._init.pop("id", None) or os.environ.get("TRAINVITALS_RUN_ID") or new_run_id()
        )
        self._run: Run | None = None
        self._owned = False

    @property
    def id(self) -> str:
        """The run's id, known before it is open."""
        return self._run.id if self._run is not None else self._id

    @property
    def run(self) -> Run | None:
        """The open run; None before `open`, after `close` and on ranks that do not record."""
        return None if self._run is None or self._run.finished else self._run

    def open(self, config: Mapping[str, Any] | None = None) -> Run | None:
        """The run, started unless one is open. A session that was closed goes on in the same run."""
        if self.run is None and (_rank() == 0 or os.environ.get("TRAINVITALS_RUN_ID")):
            current = api.current_run()
            self._owned = current is None or current.finished
            self._run = api.init(id=self._id, **self._init) if self._owned else current
        if self.run is not None and config and _rank() == 0:
            self.run.configure(config)
        return self.run

    def watch(self, model: Any, optimizers: Any, completed: int = 0) -> None:
        """Watch a model; `completed` steps were done in an earlier life of the training."""
        if self.run is None:
            return
        self.run.watch(model, optimizers, **self._watch)
        if completed > 0:
            self.run.resume_at(completed)

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Record numbers, on rank 0, for `step` or the last one there was."""
        run = self.run
        if run is not None and values and _rank() == 0:
            run.log(values, run.step if step is None and not run.watching else step)

    def should_stop(self) -> bool:
        """Whether a finding asks for the end of the training, under `on_finding="stop"`."""
        return self.run is not None and self.run.should_stop()

    def close(self, status: EndStatus = "finished", message: str = "") -> None:
        """End the run that this session started; one that it found is only watched no more."""
        if self.run is None:
            return
        if self._owned:
            self.run.finish(status, message)
        else:
            self.run.detach()

    def close_after(self, error: BaseException | None) -> None:
        """End the run with the status that an exception means; None is success."""
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.close("interrupted", type(error).__name__)
        else:
            self.close("failed", f"{type(error).__name__}: {error}")


def need(module: str, package: str) -> ModuleType:
    """A library's module. Raises ImportError that says what to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise ImportError(
            f"This integration needs {package}. Install it: pip install {package}", name=error.name
        ) from None


def installed(module: str) -> bool:
    """Whether a top-level module is there, without importing it."""
    return importlib.util.find_spec(module) is not None


def _rank() -> int:
    return rank_and_world()[0]
