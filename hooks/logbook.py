"""What is given to `tv.log`, as scalars of steps. Most of it is a number or two at every step, for which each
microsecond counts."""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from trainvitals.hooks.draft import Draft, Emitter
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.settings import clean_name
from trainvitals.hooks.wire import limits

_EARLY, _LATE = 0, 1
"""How far behind the step that is being prepared a name's values belong."""
_NOT_SHORT = -2


class Logbook:
    """Knows which step a value belongs to, and takes the value at once: the caller may change it afterwards."""

    def __init__(self, emitter: Emitter, problems: Problems) -> None:
        self._emitter = emitter
        self._problems = problems
        self._behind: dict[str, int] = {}
        """Names met so far, as they were given, that may travel as they are: `_EARLY` or `_LATE`."""
        self._early: set[str] = set()
        self.last: int | None = None
        """The highest step that was logged for."""

    def take(self, values: Mapping[str, Any], step: int | None, completed: int) -> None:
        """Record `values` for `step`, or for the last completed step; see `Run.log`.

        Known names with plain numbers, all of one step, go a short way.
        """
        known = self._behind
        numbers: list[float] = []
        behind = -1 if step is None and len(values) <= limits.MAX_SCALARS else _NOT_SHORT
        for key, value in values.items():
            if type(value) is Tensor and value.is_cpu and value.numel() == 1:
                value = value.item()
            place = known.get(key, _NOT_SHORT)
            if type(value) is not float or place < 0 or (place != behind and behind != -1):
                behind = _NOT_SHORT
                break
            behind = place
            numbers.append(value)
        if behind < 0:
            self._take(values, step, completed)
            return
        place = completed - behind
        if place > self.last:  # type: ignore[operator]  # known names were logged before
            self.last = place
        self._emitter.log(place, tuple(values), numbers)

    def _take(self, values: Mapping[str, Any], step: int | None, completed: int) -> None:
        """Record anything that can be."""
        given_step = None if step is None else _checked(step)
        by_step: dict[int, Draft] = {}
        for given, value in values.items():
            key = clean_name(str(given))
            taken = _number_of(value)
            if taken is None:
                self._problems.note(
                    f"log({key!r}) got {type(value).__name__}; expected a number or a tensor with one "
                    "element. It was left out."
                )
                continue
            if completed == 0:
                self._early.add(key)
            behind = _EARLY if key in self._early else _LATE
            if given == key:
                self._behind[key] = behind
            place = completed - behind if given_step is None else given_step
            by_step.setdefault(place, Draft(place)).scalars[key] = taken
            self.last = place if self.last is None else max(self.last, place)
        for draft in by_step.values():
            self._emitter.emit(draft)


def _checked(step: int) -> int:
    """A step that may travel. Raises TypeError for what is no whole number, ValueError beyond 2^53."""
    whole = operator.index(step)
    if whole > limits.MAX_STEP:
        raise ValueError(f"step {whole} is beyond 2^53")
    return max(whole, 0)


def _number_of(value: Any) -> Number | None:
    """`value` as a number; None when it is none. A device's tensor is copied, so that it may change later."""
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex():
            return None
        taken = number(value.detach().reshape(()))
        return taken.clone() if isinstance(taken, Tensor) else float(taken)
    if isinstance(value, bool | int | float):
        return float(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        return None
    return float(array.reshape(()).item())
