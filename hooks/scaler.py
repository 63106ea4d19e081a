"""The scale of gradient scalers: each step that one skips halves it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.interception import Replaced
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.readout import on_host

_EVERY = 20
"""Updates after which a scale on a device is copied: a storm of skipped steps shows as so many halvings at once."""


class ScalerWatch:
    """Tells the scale whenever it has changed, also while no step is completed at all.

    `GradScaler.update` is replaced while it is attached. Nothing waits for a device: what lies there is copied seldom,
    and read when it has arrived.
    """

    def __init__(
        self, emit: Callable[[Draft], None], step: Callable[[], int], problems: Problems
    ) -> None:
        """`step`: the one that is being prepared."""
        self._emit = emit
        self._step = step
        self._problems = problems
        self._replaced = Replaced(torch.amp.GradScaler, "update", self._update)
        self._told = -1.0
        self._updates = 0

    def attach(self) -> None:
        """See every update from now on."""
        self._replaced.put()

    def detach(self) -> None:
        """Put torch's own function back."""
        self._replaced.take_back()

    def aside(self) -> AbstractContextManager[None]:
        """With torch's own function for a while."""
        return self._replaced.aside()

    def _update(self, original: Callable[..., Any], mine: Replaced) -> Callable[..., Any]:
        def update(scaler: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(scaler, *args, **kwargs)
            if mine.active and scaler.is_enabled():
                try:
                    self._see(scaler)
                except (
                    Exception
                ) as error:  # the training goes on, whatever a scaler of one's own is like
                    self._problems.caught("reading the gradient scaler", error)
            return result

        return update

    def _see(self, scaler: Any) -> None:
        scale = scaler._scale
        self._updates += 1
        draft = Draft(self._step())
        if on_host(scale):
            now = float(as_numpy(scale))
            if now == self._told:
                return
            draft.scalars["tv/amp_scale"] = self._told = now
        elif self._updates % _EVERY == 1:
            draft.scalars["tv/amp_scale"] = scale.detach().clone()
        else:
            return
        self._emit(draft)
