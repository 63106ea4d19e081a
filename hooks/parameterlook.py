"""Weights, gradients and updates of one step that is looked at, for each optimizer that steps in it."""

from operator import is_
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from trainvitals.hooks.alongside import alongside
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.gradients import GradientNorm, root_of_squares
from trainvitals.hooks.optimizers import Optimizers
from trainvitals.hooks.parameterstats import Members, StepStatistics
from trainvitals.hooks.readout import Number
from trainvitals.hooks.registry import Parameter, Registry, Rows, local
from trainvitals.hooks.sharded import ShardSums


class _Look:
    """What was taken in one step, by the optimizers' ids."""

    def __init__(self) -> None:
        self.statistics: dict[int, StepStatistics] = {}
        self.norms: dict[int, Number] = {}
        self.untried: set[int] = set()
        """Optimizers whose gradients were taken and that have not stepped with them yet."""


class _Known(NamedTuple):
    """The parameters whose statistics are taken when an optimizer steps."""

    members: Members
    basis: list[Any]
    """What they were found from, none of which is ever changed."""

    def rests_on(self, basis: list[Any]) -> bool:
        """Whether just these would be found now, where they lay."""
        same = len(basis) == len(self.basis) and all(map(is_, basis, self.basis))
        small = self.members.small
        return same and (small is None or small.is_current)


class ParameterLook:
    """Takes the weights before an optimizer's step, the gradients before they are clipped, then the update."""

    def __init__(self, registry: Registry, optimizers: Optimizers, rows: Rows) -> None:
        self._registry = registry
        self._optimizers = optimizers
        self._rows = rows
        self._members: dict[int, _Known] = {}
        """By the optimizer's id: several may be looked at before the first of them steps."""
        self._looks: dict[Draft, _Look] = {}
        self.sums: ShardSums | None = None
        """Takes the place of all else where the model is sharded over ranks that look together."""

    def clear(self, but: Draft | None = None) -> None:
        """Steps are over, but for one that waits for further optimizers."""
        self._looks = {draft: look for draft, look in self._looks.items() if draft is but}
        self.sums = None

    @property
    def untried(self) -> bool:
        """Whether gradients were taken, at their clipping, with which no optimizer has stepped yet."""
        return any(look.untried for look in self._looks.values())

    def forget_untried(self, step: int) -> None:
        """No optimizer will step with these gradients. In the `step` under way a scaler skipped it, and those that come
        next count; in the one before an optimizer left its turn out."""
        for draft, look in self._looks.items():
            for key in look.untried:
                look.statistics.pop(key, None)
                if draft.step == step:
                    del look.norms[key]
            look.untried.clear()

    def forget(self) -> None:
        """Let go of what is kept of the models."""
        self._members.clear()

    def take_weights(self, optimizer: Optimizer, draft: Draft, histograms: bool) -> None:
        """Statistics of the weights go into `draft`; nothing where they were taken already."""
        if self.sums is not None:
            self.sums.take_weights(optimizer, self._wanted(optimizer))
            return
        statistics = self._look(draft).statistics
        if id(optimizer) not in statistics:
            statistics[id(optimizer)] = StepStatistics(self._known(optimizer), draft, histograms)

    def _known(self, optimizer: Optimizer) -> Members:
        """What is wanted of an optimizer, found out again when models or optimizers have changed."""
        held = map(self._optimizers.members, self._optimizers.known)
        basis = [optimizer, self._registry.wanted_parameters, *held]
        known = self._members.get(id(optimizer))
        if known is None or not known.rests_on(basis):
            members = Members(self._wanted(optimizer), self._rows, optimizer)
            known = self._members[id(optimizer)] = _Known(members, basis)
        return known.members

    def _look(self, draft: Draft) -> _Look:
        return self._looks.setdefault(draft, _Look())

    def _wanted(self, optimizer: Optimizer) -> list[Parameter]:
        """Its parameters, and with the first optimizer those that none holds."""
        members = self._optimizers.members(optimizer)
        if self._optimizers.is_primary(optimizer):
            owned = self._optimizers.held()
            spare = [p for key, p in self._registry.parameters.items() if key not in owned]
            members = members + spare
        wanted = self._registry.wanted_parameters
        return [p for p in members if id(p.tensor) in wanted and not is_lazy(p.tensor)]

    def take_gradients(self, optimizer: Optimizer, draft: Draft) -> Number | None:
        """The norm over its gradients, and their statistics; None where they were taken already."""
        look = self._look(draft)
        if id(optimizer) in look.norms:
            return None
        members = self._optimizers.members(optimizer)
        if self.sums is not None:
            self.sums.take_gradients(optimizer, members)
            return None
        given = getattr(optimizer, "grad_scale", None)
        scale = given if isinstance(given, Tensor) else None
        few = self._optimizers.has_few_elements(optimizer)
        statistics = look.statistics.get(id(optimizer))
        left, norms = members, list[Number]()
        if statistics is not None:
            small_norm, known = statistics.take_gradients(scale), statistics.members
            if small_norm is not None and known.holds_small:
                norms.append(small_norm)
                left = [p for p in members if id(p.tensor) not in known.small_ids]
            if self._optimizers.is_primary(optimizer):
                along = alongside(optimizer, members, known.memory)
                if along is not None:
                    draft.scalars["tv/grad_along"] = along
        gradients = [local(p.tensor.grad) for p in left if p.tensor.grad is not None]
        if gradients or not norms:
            norms.append(GradientNorm(gradients, scale, few).value)
        norm = look.norms[id(optimizer)] = root_of_squares(norms)
        look.untried.add(id(optimizer))
        return norm

    def take_update(self, optimizer: Optimizer) -> bool:
        """Statistics of the update; whether it left weights (on the CPU) non-finite."""
        if self.sums is not None:
            self.sums.take_update(optimizer)
        spoiled = False
        for look in self._looks.values():
            look.untried.discard(id(optimizer))
            statistics = look.statistics.pop(id(optimizer), None)
            if statistics is not None:
                spoiled |= bool(statistics.finish())
        return spoiled

    def take_norm(self, draft: Draft) -> Number | None:
        """Gradient norm over all optimizers that were looked at in a step, which is complete."""
        look = self._looks.pop(draft, None)
        if look is None:
            return None
        return root_of_squares(list(look.norms.values())) if look.norms else None
