"""The losses that backward passes begin from: which of them stand out."""

import math
import sys
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

from torch import Tensor

from trainvitals.hooks.guard import is_on_device, value_of
from trainvitals.hooks.latelosses import LateLosses
from trainvitals.hooks.pace import ANOMALY_FACTOR

_NO_LIMIT = sys.float_info.max


class LossValues:
    """Looks at each loss for a fraction of a microsecond; what is usual is reckoned now and then."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=100)
        self._limit = _NO_LIMIT
        self._late = LateLosses()

    def is_usual(self, loss: Any) -> bool:
        """Notes a loss that is a single number on the CPU; whether it is one and does not stand out.

        Called at every step: `tolist` reads the memory at once, where `item` would go through torch's dispatcher.
        """
        if type(loss) is Tensor and loss.is_cpu and loss.ndim == 0:
            value: float = loss.tolist()  # type: ignore[assignment]
            if -math.inf < value <= self._limit:
                self._values.append(value)
                return True
        return False

    def see(self, step: Callable[[], int], loss: Any) -> float | None:
        """The value of a loss that is not finite or far above the usual; None of any other.

        One on a device is looked at later, by `late_bad_steps`.
        """
        if is_on_device(loss):
            self._late.see(step(), loss)
            return None
        value = value_of(loss)
        self._values.append(value)
        return None if -math.inf < value <= self._limit else value

    def learn(self) -> None:
        """Take the losses so far for the usual ones."""
        if len(self._values) >= 10:
            usual = median(self._values)
            self._limit = ANOMALY_FACTOR * usual if usual > 0 else _NO_LIMIT

    def late_bad_steps(self, wait: bool = False) -> list[int]:
        """Steps whose loss a device has delivered by now and which was not finite."""
        return self._late.bad_steps(wait)
