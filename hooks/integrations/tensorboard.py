"""A `SummaryWriter` that records to trainvitals: for code that was written for TensorBoard, which it does not need.

from trainvitals.hooks.integrations.tensorboard import SummaryWriter

writer = SummaryWriter("runs/baseline")
writer.add_scalar("train/loss", loss, step)
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from trainvitals.hooks.integrations.session import Options, Session
from trainvitals.hooks.sender import say

_open: list["SummaryWriter"] = []
"""Writers that share the run which the first of them started; the last one to close ends it."""


class SummaryWriter:
    """Has the methods of `torch.utils.tensorboard.SummaryWriter`.

    Scalars and histograms are recorded, under their tags; hyperparameters are configuration. The rest is accepted
    and said once not to be recorded. All writers of a process speak to one run: the one that is open, or that the
    first of them starts. A step that is not given is the last one; the time is always the recording's.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
        **options: Unpack[Options],
    ) -> None:
        """`log_dir` and `comment` name the run; nothing is written there. Also takes the arguments of `tv.init`."""
        self.log_dir = os.fspath(log_dir) if log_dir is not None else "runs"
        """The folder that was named; nothing is in it."""
        self.purge_step = None  # as the original says once it has purged
        self.max_queue, self.flush_secs = max_queue, flush_secs
        self.filename_suffix = filename_suffix
        name = (Path(self.log_dir).name if log_dir is not None else "") + comment
        if name and "name" not in options:
            options["name"] = name
        self._said: set[str] = set()
        shared = [writer._session for writer in _open if writer._session.run is not None]
        self._session: Session = shared[0] if shared else Session(options)
        self._begin()

    def _begin(self) -> Session:
        """The run to speak to: as with the original, a writer that was closed goes on when it is used."""
        if self not in _open:
            _open.append(self)
            self._session.open()
        return self._session

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Record a number."""
        self._begin().log({tag: scalar_value}, _whole(global_step))

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Record several numbers as `main_tag/tag`."""
        values = {f"{main_tag}/{tag}": value for tag, value in tag_scalar_dict.items()}
        self._begin().log(values, _whole(global_step))

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """Record how values are distributed, in the fixed bins of all histograms."""
        run = self._begin().run
        if run is not None:
            run.log_histogram(tag, values, _whole(global_step))

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Any = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Add to the run's configuration, and record the metrics."""
        self._begin().open(hparam_dict)
        self._session.log(metric_dict, _whole(global_step))

    def get_logdir(self) -> str:
        """The folder that was named; nothing is in it."""
        return self.log_dir

    def flush(self) -> None:
        """Nothing to do: records are written as they come."""

    def close(self) -> None:
        """End the run, unless another writer is still open or someone else has started it."""
        if self in _open:
            _open.remove(self)
            if all(writer._session is not self._session for writer in _open):
                self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self in _open:
            _open.remove(self)
            self._session.close_after(error)
        self.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Any other `add_...`: accepted, not recorded."""
        if not name.startswith("add_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def ignore(*args: Any, **kwargs: Any) -> None:
            if name not in self._said:
                self._said.add(name)
                say(f"SummaryWriter.{name} is not recorded; scalars and histograms are.")

        return ignore


def _whole(step: Any) -> int | None:
    return None if step is None else int(step)
