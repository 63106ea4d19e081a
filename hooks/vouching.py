"""Which losses tell how the last steps went, where several models are trained with losses of their own."""

from collections.abc import Iterable

from torch import nn

from trainvitals.hooks.aftermath import Aftermath
from trainvitals.hooks.call import Call
from trainvitals.hooks.registry import Registry


class Vouching:
    """A loss that is fine vouches for the steps of the optimizers that move the models it was made with."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._models_with: dict[nn.Module, set[nn.Module]] = {}
        """Where there are several models: those that a module is part of."""

    def resize(self) -> None:
        """Follow the watched models."""
        self._models_with = {}
        if len(self._registry.roots) > 1:
            for model in self._registry.roots:
                for module in model.modules():
                    self._models_with.setdefault(module, set()).add(model)

    def forget(self) -> None:
        """Keep nothing of the training."""
        self._models_with = {}

    def let_go(self, kept: list[Aftermath], calls: Iterable[Call]) -> None:
        """A loss that was made by these calls is fine: let go of what is kept of the steps that it tells of."""
        models: set[nn.Module] = set()
        if self._models_with:
            models.update(*(self._models_with.get(call[0], ()) for call in list(calls)))
        doubtful = []
        for aftermath in kept:
            if models and aftermath.models and models.isdisjoint(aftermath.models):
                doubtful.append(aftermath)
            else:
                aftermath.let_go()
        kept[:] = doubtful
