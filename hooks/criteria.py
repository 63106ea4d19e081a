"""Watched loss modules: their value, and the labels that they are given."""

from torch import Tensor, nn

from trainvitals.hooks.call import Call
from trainvitals.hooks.labels import Labels
from trainvitals.hooks.readout import Number, number


class Criteria:
    """Reads calls of the loss modules that were named to `watch`, and counts labels."""

    def __init__(self) -> None:
        self._modules: set[nn.Module] = set()
        self._labels = Labels()
        self._losses: list[Number] = []
        self.sampled = False
        """Whether the step under way is sampled."""

    def __bool__(self) -> bool:
        """Whether there is a module to watch."""
        return bool(self._modules)

    def add(self, module: nn.Module) -> None:
        """Watch this one too."""
        self._modules.add(module)

    def clear(self) -> None:
        """Let go of the modules."""
        self._modules.clear()

    def see(self, call: Call) -> None:
        """Note the value and the labels, if this is the call of a watched module."""
        module, args, _, output = call
        if module not in self._modules or not isinstance(output, Tensor) or output.numel() != 1:
            return
        self._losses.append(number(output.detach()))
        if len(args) > 1 and isinstance(args[1], Tensor):
            self.see_labels(args[1])

    def see_observed(self, target: Tensor) -> None:
        """Count the labels of a loss call that nobody named, unless others were named."""
        if not self._modules:
            self.see_labels(target)

    def see_labels(self, target: Tensor) -> None:
        """Count a batch of labels, as often as the pace allows."""
        if self._labels.wanted(self.sampled):
            self._labels.see(target)

    def begin_step(self, sampled: bool) -> None:
        """A step begins."""
        self.sampled = sampled
        self._losses = []

    def scalars(self) -> dict[str, Number]:
        """`tv/loss` of the step, the mean over its batches, and the label statistics so far."""
        found: dict[str, Number] = dict(self._labels.scalars())
        if self._losses:
            found["tv/loss"] = sum(self._losses[1:], self._losses[0]) / len(self._losses)
        return found
