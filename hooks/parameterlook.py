"""Weights, gradients and updates of one step that is looked at, for each optimizer that steps in it."""

from torch import Tensor
from torch.optim import Optimizer

from trainvitals.hooks.draft import Draft
from trainvitals.hooks.gradients import GradientNorm, StepStatistics, root_of_squares
from trainvitals.hooks.memory import Memory
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.readout import Number
from trainvitals.hooks.registry import Parameter, Registry, Rows, local
from trainvitals.hooks.sharded import ShardSums


class ParameterLook:
    """Takes the weights before an optimizer's step, the gradients before they are clipped, then the update."""

    def __init__(self, registry: Registry, optimizers: Optimizers, rows: Rows) -> None:
        self._registry = registry
        self._optimizers = optimizers
        self._rows = rows
        self._memory = Memory()
        self._statistics: dict[int, StepStatistics] = {}
        self._norms: dict[int, Number] = {}
        self.sums: ShardSums | None = None
        """Takes the place of all else where the model is sharded over ranks that look together."""

    def clear(self) -> None:
        """The step is over."""
        self._statistics, self._norms, self.sums = {}, {}, None

    def forget(self) -> None:
        """Let go of what is kept of the models."""
        self._memory.clear()

    def take_weights(self, optimizer: Optimizer, draft: Draft, histograms: bool) -> None:
        """Statistics of the weights go into `draft`; nothing where they were taken already."""
        if self.sums is not None:
            self.sums.take_weights(optimizer, self._wanted(optimizer))
        elif id(optimizer) not in self._statistics:
            self._statistics[id(optimizer)] = StepStatistics(
                self._wanted(optimizer), self._rows, draft, histograms, optimizer, self._memory
            )

    def _wanted(self, optimizer: Optimizer) -> list[Parameter]:
        """Its parameters, and with the first optimizer those that none holds."""
        members = self._optimizers.members(optimizer)
        if self._optimizers.is_primary(optimizer):
            owned = self._optimizers.held()
            spare = [p for key, p in self._registry.parameters.items() if key not in owned]
            members = members + spare
        return [p for p in members if id(p.tensor) in self._registry.wanted_parameters]

    def take_gradients(self, optimizer: Optimizer) -> Number | None:
        """The norm over its gradients, and their statistics; None where they were taken already."""
        if id(optimizer) in self._norms:
            return None
        members = self._optimizers.members(optimizer)
        if self.sums is not None:
            self.sums.take_gradients(optimizer, members)
            return None
        gradients = [local(p.tensor.grad) for p in members if p.tensor.grad is not None]
        scale = getattr(optimizer, "grad_scale", None)
        few = self._optimizers.has_few_elements(optimizer)
        norm = GradientNorm(gradients, scale if isinstance(scale, Tensor) else None, few).value
        self._norms[id(optimizer)] = norm
        if id(optimizer) in self._statistics:
            self._statistics[id(optimizer)].take_gradients()
        return norm

    def take_update(self, optimizer: Optimizer) -> bool:
        """Statistics of the update; whether it left weights (on the CPU) non-finite."""
        if self.sums is not None:
            self.sums.take_update(optimizer)
        statistics = self._statistics.pop(id(optimizer), None)
        return bool(statistics.finish()) if statistics is not None else False

    def norm(self) -> Number | None:
        """Gradient norm over all optimizers that were looked at."""
        return root_of_squares(list(self._norms.values())) if self._norms else None
