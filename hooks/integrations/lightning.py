"""Lightning: a callback that watches a fit, and a logger. For `lightning` and for `pytorch_lightning`.

from trainvitals.hooks.integrations.lightning import TrainVitals

trainer = Trainer(callbacks=[TrainVitals(project="digits")])
"""

import sys
from argparse import Namespace
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Unpack

from trainvitals.hooks.integrations.session import Options, Session, installed, need
from trainvitals.hooks.run import Run


def _bases(name: str) -> tuple[type, ...]:
    """Lightning's class of that name, under each of the two names of the package that is installed."""
    found = [m for m in ("lightning.pytorch", "pytorch_lightning") if installed(m.split(".")[0])]
    modules = [need(m, "lightning") for m in found or ["lightning.pytorch"]]
    return tuple(attrgetter(name)(module) for module in modules)


class TrainVitals(*_bases("Callback")):  # type: ignore[misc]
    """Watches the model and its optimizers during `fit` and records what the module logs.

    What `self.log` logs is recorded at every batch, at the optimizer step that the batch belongs to: all batches
    of an accumulated gradient are one step, and values of an epoch or a validation stand at the last step before it.
    Where a `TrainVitalsLogger` is at work, it records them instead.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        """Takes the arguments of `tv.init` and of `tv.watch`."""
        super().__init__()
        self._options = options
        self._session = Session(options)
        self._step = 0
        """The step that the current batch belongs to."""
        self._completed = 0
        """Steps of the first of several optimizers, in this fit and those that it goes on from."""
        self._before: dict[str, Any] = {}
        self._step_keys: set[str] = set()

    @property
    def run(self) -> Run | None:
        """The open run, for `log` and the like; None outside of `fit` and on ranks that do not record."""
        return self._session.run

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the run."""
        self._session = Session(self._options)
        self._before, self._step_keys = {}, set()
        self._session.open(dict(pl_module.hparams))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach: the optimizers are there now, and a checkpoint was loaded."""
        # Lightning counts the steps of all optimizers together, a run those of the first one.
        completed, optimizers = trainer.global_step, len(trainer.optimizers)
        if completed and optimizers > 1:
            completed = self._completed or completed // optimizers
        self._session.watch(pl_module, trainer.optimizers, completed)
        self._step = completed

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember where the step and the metrics stand."""
        if self.run is not None:
            self._step = self.run.completed
            self._before = dict(trainer.logged_metrics)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record what the batch logged."""
        if self.run is not None:
            self._step = max(self._step, self.run.completed - 1)
            if len(trainer.optimizers) > 1:
                self._completed = self.run.completed
            self._step_keys.update(self._log_new(trainer))
            if self._session.should_stop():
                trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Record what the epoch before logged: only now all of its hooks have spoken."""
        self._log_new(trainer, but=self._step_keys)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what the last epoch logged."""
        self._log_new(trainer, but=self._step_keys)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember where the metrics stand."""
        self._before = dict(trainer.logged_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what the validation logged."""
        if not trainer.sanity_checking:
            self._log_new(trainer)
        self._before = dict(trainer.logged_metrics)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """End the run."""
        self._session.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run as failed or interrupted."""
        self._session.close_after(exception)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: what Lightning's own count does not tell."""
        return {"completed": self._completed} if self._completed else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._completed = int(state_dict["completed"])

    def _log_new(self, trainer: Any, but: set[str] | frozenset[str] = frozenset()) -> set[str]:
        """Record the metrics that were logged since `_before`; their names. A new value is a new tensor."""
        now = dict(trainer.logged_metrics)
        new = {
            key: value
            for key, value in now.items()
            if key not in but and value is not self._before.get(key)
        }
        if not any(isinstance(logger, TrainVitalsLogger) for logger in trainer.loggers):
            self._session.log(new, self._step)
        return set(new)


class TrainVitalsLogger(*_bases("loggers.Logger")):  # type: ignore[misc]
    """Records what Lightning's loggers are given: metrics every `log_every_n_steps`, hyperparameters as configuration.

    Steps are Lightning's own, or the optimizer's where the callback or `tv.watch` counts them. What is logged
    after the end (`trainer.test` after `trainer.fit`) goes on in the same run.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        """Takes the arguments of `tv.init`; those of `tv.watch` are for the callback."""
        super().__init__()
        self._session = Session(options)

    @property
    def name(self) -> str:
        """The project."""
        return self._session.project

    @property
    def version(self) -> str:
        """The run's id."""
        return self._session.id

    @property
    def experiment(self) -> Run | None:
        """The run, started with the first use; None on ranks that do not record."""
        return self._session.open()

    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Add to the run's configuration."""
        self._session.open(vars(params) if isinstance(params, Namespace) else params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics at a step."""
        run = self._session.open()
        watched = run is not None and run.watching
        self._session.log(metrics, run.step if run is not None and watched else step)

    def finalize(self, status: str) -> None:
        """End the run. Lightning says "success" or "failed"; of an interruption it tells by the exception alone."""
        if status == "failed":
            self._session.close_after(sys.exception() or RuntimeError("the training failed"))
        else:
            self._session.close()
