"""The losses that backward passes begin from: which of them stand out."""

import math
from collections.abc import Callable
from statistics import median
from typing import Any

from trainvitals.hooks.guard import is_on_device, value_of
from trainvitals.hooks.latelosses import LateLosses
from trainvitals.hooks.pace import ANOMALY_FACTOR
from trainvitals.hooks.quiet import NO_LIMIT, Quiet


class LossValues:
    """Judges the losses that are not looked at in passing; what is usual is reckoned now and then."""

    def __init__(self, quiet: Quiet) -> None:
        self._quiet = quiet
        self._late = LateLosses()

    def see(self, step: Callable[[], int], loss: Any) -> float | None:
        """The value of a loss that is not finite or far above the usual; None of any other.

        One on a device is looked at later, by `late_bad_steps`.
        """
        if is_on_device(loss):
            self._late.see(step(), loss)
            return None
        value = value_of(loss)
        self._quiet.losses.append(value)
        return None if -math.inf < value <= self._quiet.limit else value

    def learn(self) -> None:
        """Take the losses so far for the usual ones."""
        if len(self._quiet.losses) >= 10:
            usual = median(self._quiet.losses)
            self._quiet.limit = ANOMALY_FACTOR * usual if usual > 0 else NO_LIMIT

    def late_bad_steps(self, wait: bool = False) -> list[int]:
        """Steps whose loss a device has delivered by now and which was not finite."""
        return self._late.bad_steps(wait)
