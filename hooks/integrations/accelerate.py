"""Hugging Face Accelerate: a tracker.

from trainvitals.hooks.integrations.accelerate import TrainVitalsTracker

accelerator = Accelerator(log_with=TrainVitalsTracker(project="digits"))
accelerator.init_trackers("digits", config={"lr": 1e-3})  # then tv.watch(model, optimizer)
"""

from collections.abc import Mapping
from typing import Any, Unpack

from trainvitals.hooks.integrations.session import Options, Session, need
from trainvitals.hooks.run import Run


class TrainVitalsTracker(need("accelerate.tracking", "accelerate").GeneralTracker):  # type: ignore[misc]
    """Records what `accelerator.log` is given; `init_trackers` starts the run and `end_training` ends it."""

    name = "trainvitals"
    requires_logging_directory = False

    def __init__(self, **options: Unpack[Options]) -> None:
        """Takes the arguments of `tv.init` and, for `watch`, of `tv.watch`."""
        super().__init__()
        self._session = Session(options)

    @property
    def tracker(self) -> Run | None:
        """The open run; None before `init_trackers` and on processes that do not record."""
        return self._session.run

    def start(self) -> None:
        """Start the run."""
        self._session.open()

    def watch(self, model: Any, optimizers: Any = None) -> None:
        """`tv.watch`, on the processes that record. Prepared models and optimizers are welcome."""
        self._session.watch(model, optimizers)

    def should_stop(self) -> bool:
        """Whether a finding asks for the end of the training, under `on_finding="stop"`: on this process alone.

        `if tracker.should_stop(): accelerator.set_trigger()` tells it to all, who ask `accelerator.check_trigger()`.
        """
        return self._session.should_stop()

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Add to the run's configuration."""
        self._session.open(values)

    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record numbers for the last completed step or for `step`; of nested ones the names are joined by "/"."""
        numbers: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, Mapping):
                numbers |= {f"{key}/{inner}": x for inner, x in value.items()}
            elif not isinstance(value, str):
                numbers[key] = value
        self._session.log(numbers, step)

    def finish(self) -> None:
        """End the run."""
        self._session.close()
