"""Hugging Face Transformers: a callback for its `Trainer`.

from trainvitals.hooks.integrations.transformers import TrainVitals

trainer = Trainer(model, args, callbacks=[TrainVitals(project="digits")])
"""

import dataclasses
from collections.abc import Mapping
from numbers import Real
from typing import Any, Unpack

from torch import Tensor

from trainvitals.hooks.integrations.session import Options, Session, need
from trainvitals.hooks.run import Run

_SPEED = ("_runtime", "_per_second", "total_flos")


class TrainVitals(need("transformers", "transformers").TrainerCallback):  # type: ignore[misc]
    """Watches the model and its optimizer during `train` and records what the trainer logs, under its names.

    What it logs after that (`evaluate`) goes on in the same run, at the step after the last one.

    The trainer's `global_step` is the number of steps done: what it logs at `global_step` N speaks of step N - 1
    of the run, whose steps count from 0. After a resume steps go on where the checkpoint stood; give the `id` of the
    run to go on in it.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        """Takes the arguments of `tv.init` and of `tv.watch`."""
        super().__init__()
        self._options = options
        self._session = Session(options)
        self._trained = False
        """Whether the run has ended with its training."""

    @property
    def run(self) -> Run | None:
        """The open run, for `log` and the like; None outside of `train` and on ranks that do not record."""
        return self._session.run

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Start the run and attach."""
        # No hook tells of an exception: a run that is still open was left by one, in a notebook for instance.
        self._session.close("failed", "The training before this one did not end.")
        self._session, self._trained = Session(self._options), False
        self._session.open(_config(args, model))
        self._session.watch(model, optimizer, int(state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the trainer to stop where a finding does."""
        if self._session.should_stop():
            control.should_training_stop = True

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the numbers among what the trainer logs, without those of its own speed."""
        numbers = {
            key: value
            for key, value in (logs or {}).items()
            if _is_number(value) and not key.endswith(_SPEED)
        }
        step = int(state.global_step)
        if self._trained and self.run is None:
            self._session.open()
            self._session.log(
                numbers, step
            )  # a later attempt, which takes the place of none of the training's steps
            self._session.close()
        else:
            self._session.log(numbers, max(step - 1, 0))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        self._session.close()
        self._trained = True


def _is_number(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, Real)


def _config(args: Any, model: Any) -> dict[str, Any]:
    """Training arguments that differ from their defaults, and what the model's configuration says of itself."""
    config = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(args)
        if field.init and getattr(args, field.name) != field.default
    }
    about: Any = getattr(model, "config", None)
    return config | ({"model": about.to_diff_dict()} if hasattr(about, "to_diff_dict") else {})
