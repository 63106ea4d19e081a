"""Notices at once that an optimizer is given more parameters, as those that were added or unfrozen."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from trainvitals.hooks.interception import Replaced


class Changes:
    """Asks nothing at each step: `Optimizer.add_param_group` is replaced while it is attached."""

    def __init__(self, tell: Callable[[Optimizer], None]) -> None:
        """`tell` gets the optimizer, after each time; it must not raise."""
        self._tell = tell
        self._replaced = Replaced(Optimizer, "add_param_group", self._adding)

    def attach(self) -> None:
        """Notice changes from now on."""
        self._replaced.put()

    def detach(self) -> None:
        """Put torch's own function back."""
        self._replaced.take_back()

    def _adding(self, original: Callable[..., Any], mine: Replaced) -> Callable[..., Any]:
        def add_param_group(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            result = original(optimizer, *args, **kwargs)
            if mine.active:
                self._tell(optimizer)
            return result

        return add_param_group
