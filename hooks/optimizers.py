"""The optimizers of a training: whose parameters they hold, who counts, who has stepped."""

from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import chain, starmap, zip_longest
from operator import is_
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from trainvitals.hooks.aftermath import Aftermath, aftermath_of
from trainvitals.hooks.gradients import FEW
from trainvitals.hooks.readout import Number, number
from trainvitals.hooks.registry import Parameter, Registry


class Optimizers:
    """Those passed to `watch` and those seen stepping; the first of them counts the steps."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: list[Optimizer] = []
        self._members: dict[int, list[Parameter]] = {}
        self._held: dict[int, list[Tensor]] = {}
        """All that an optimizer held when its members were looked up, watched or not."""
        self._few: dict[int, bool] = {}
        self.aftermaths: dict[int, Aftermath] = {}
        """What is kept of the steps of each, by its id."""
        self._late: set[int] = set()
        """Those whose turn comes after the one that counts, by their ids."""
        self._apart: set[int] = set()
        """Those of them that have a backward pass of their own after that one's step."""
        self._stepped: set[int] = set()
        self._active: Optimizer | None = None
        self._inner: WeakSet[Optimizer] = WeakSet()
        """Those that were seen stepping inside the step of another one."""
        self._replaced: WeakSet[Optimizer] = WeakSet()
        self._lasting: WeakSet[Optimizer] = WeakSet()
        """Those in whose place none steps from now on that `watch` was not told of."""
        self._successors: list[Optimizer] = []
        """Those of another training than the one that was counted so far: if one steps first, they count on."""

    def add(self, optimizer: Optimizer) -> None:
        """Know this optimizer from now on."""
        if not _is_among(optimizer, self._known):
            self._known.append(optimizer)

    def name(
        self, optimizers: Sequence[Optimizer], models: Sequence[nn.Module], under_way: bool
    ) -> None:
        """Know those that a call of `watch` names, with its models; `under_way`: steps were counted before.

        One that holds all watched parameters of an older one takes its place, as a notebook that makes a new
        optimizer means it. Named for other models than the older ones, it is perhaps the next training.
        """
        new = [optimizer for optimizer in optimizers if not _is_among(optimizer, self._known)]
        for optimizer in new:
            replaced = [
                old for old in self._known if self._holds_all_of(optimizer, old, optimizers)
            ]
            place = self._known.index(replaced[0]) if replaced else len(self._known)
            self._known.insert(place, optimizer)
            for old in replaced:
                self._forget(old)
        named = {id(tensor) for model in models for tensor in model.parameters()}
        counted = self.members(self._known[0]) if self._known else []
        elsewhere = not any(id(parameter.tensor) in named for parameter in counted)
        self._successors = new if under_way and elsewhere else []

    def _holds_all_of(
        self, optimizer: Optimizer, old: Optimizer, named: Sequence[Optimizer]
    ) -> bool:
        """Whether it holds all watched parameters of an old one, which was not `named` again."""
        held = set(map(id, _tensors(optimizer)))
        members = {id(parameter.tensor) for parameter in self.members(old)}
        return bool(members) and members <= held and not _is_among(old, named)

    def take_over(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer that steps stands in for one from now on, as it is new and holds all its watched
        parameters: a training has made it in its midst. To be asked of none whose step is inside that of another."""
        if _is_among(optimizer, self._known) or optimizer in self._inner:
            return False
        lasting = [known for known in self._known if known in self._lasting]
        old = [known for known in self._known if self._holds_all_of(optimizer, known, lasting)]
        if not old:
            return False
        if optimizer in self._replaced:  # and it steps again: as inner and outer loops take turns
            self._lasting.add(optimizer)
        self._replaced.update(old)
        self.name([optimizer, *lasting], (), under_way=False)
        self.renew()
        return True

    def _is_of_an_inner_loop(self, optimizer: Optimizer) -> bool:
        """Whether it is a new one that steps between the steps of a lasting one that holds as much."""
        new = not _is_among(optimizer, self._known)
        return new and any(self._holds_all_of(known, optimizer, ()) for known in self._lasting)

    def _forget(self, optimizer: Optimizer) -> None:
        self._known = [known for known in self._known if known is not optimizer]
        key = id(optimizer)  # may be another one's later
        self._members.pop(key, None)
        self._held.pop(key, None)
        self._few.pop(key, None)
        self.aftermaths.pop(key, None)
        self._stepped.discard(key)
        self._late.discard(key)
        self._apart.discard(key)

    def _settle(self, optimizer: Optimizer) -> None:
        """The first one to step after another training was named tells which of them goes on."""
        if _is_among(optimizer, self._successors):
            older = [known for known in self._known if not _is_among(known, self._successors)]
            self._known, self._successors = self._successors + older, []
        elif self.is_primary(optimizer):
            self._successors = []

    def clear(self) -> None:
        """Know none any more."""
        self._known.clear()
        self._stepped.clear()
        self._late.clear()
        self._apart.clear()
        self._successors = []
        self._active = None
        for seen in (self._inner, self._replaced, self._lasting):
            seen.clear()
        self.forget_members()

    @property
    def known(self) -> list[Optimizer]:
        """All of them, the one that counts the steps first."""
        return self._known

    def renew(self) -> None:
        """Follow optimizers and parameters that are new."""
        for optimizer in self._known:
            if id(optimizer) not in self.aftermaths:
                members = self.members(optimizer)
                models = self._registry.models_with(members)
                self.aftermaths[id(optimizer)] = aftermath_of(optimizer, members, models)

    def is_primary(self, optimizer: Optimizer) -> bool:
        """Whether this is the one that counts the steps."""
        return optimizer is self._known[0]

    def primary_aftermath(self) -> Aftermath | None:
        """What is kept of the steps of the one that counts them."""
        return self.aftermaths.get(id(self._known[0])) if self._known else None

    def members(self, optimizer: Optimizer) -> list[Parameter]:
        """Watched parameters that the optimizer holds."""
        members = self._members.get(id(optimizer))
        if members is None:
            known = self._registry.parameters
            members = [known[id(t)] for t in _tensors(optimizer) if id(t) in known]
            if _is_among(optimizer, self._known):  # the id of any other may be another one's later
                self._members[id(optimizer)] = members
                self._held[id(optimizer)] = list(_tensors(optimizer))
        return members

    def has_changed(self, optimizer: Optimizer) -> bool:
        """Whether it holds other parameters than when its members were looked up."""
        pairs = zip_longest(_tensors(optimizer), self._held.get(id(optimizer), ()))
        return not all(starmap(is_, pairs))

    def have_changed(self) -> bool:
        """Whether any holds other parameters."""
        return any(map(self.has_changed, self._known))

    def holding(self, gradients: Iterable[Iterable[Tensor]]) -> list[Optimizer]:
        """Those that hold a parameter with one of these gradients."""
        known = {id(gradient) for group in gradients for gradient in group}
        return [
            optimizer
            for optimizer in self._known
            if any(id(parameter.tensor.grad) in known for parameter in self.members(optimizer))
        ]

    def has_few_elements(self, optimizer: Optimizer) -> bool:
        """Whether all its parameters together are small."""
        few = self._few.get(id(optimizer))
        if few is None:
            tensors = [parameter.tensor for parameter in self.members(optimizer)]
            size = sum(tensor.numel() for tensor in tensors if not is_lazy(tensor))
            few = self._few[id(optimizer)] = size <= FEW
        return few

    def forget_members(self) -> None:
        """Look the parameters up again: models or parameter groups may have changed."""
        self._members.clear()
        self._held.clear()
        self._few.clear()
        self.aftermaths.clear()

    def held(self) -> set[int]:
        """Ids of all watched parameters that any optimizer holds."""
        return {id(p.tensor) for optimizer in self._known for p in self.members(optimizer)}

    def begin(self, optimizer: Optimizer) -> bool:
        """An optimizer is about to step; whether that step is one to look at.

        It is not when nothing watched is moved, or inside the step of an optimizer that wraps this one.
        """
        members = self.members(optimizer)
        if not members:
            return False
        if self._active is not None and self._active is not optimizer:
            outer = {id(parameter.tensor) for parameter in self.members(self._active)}
            if any(id(parameter.tensor) in outer for parameter in members):
                self._inner.add(optimizer)
                return False
        if not self.take_over(optimizer):
            if self._is_of_an_inner_loop(optimizer):
                return False
            self.add(optimizer)
        self._active = optimizer
        if self._successors:
            self._settle(optimizer)
        return True

    def end(self, optimizer: Optimizer) -> bool:
        """An optimizer has stepped; whether `begin` had said yes."""
        if self._active is not optimizer:
            return False
        self._active = None
        return True

    def began_unseen(self, optimizer: Optimizer) -> bool:
        """Whether its step, which is over, is one to look at although nobody did as it began: the loss of its closure
        stood out."""
        return self._active is None and self.begin(optimizer) and self.end(optimizer)

    def saw_step(self, optimizer: Optimizer, late: bool, apart: bool) -> None:
        """It had its turn; `late`: after the one that counts, whose step was over; `apart`: with a backward pass since
        that step."""
        self._stepped.add(id(optimizer))
        (self._late.add if late else self._late.discard)(id(optimizer))
        (self._apart.add if late and apart else self._apart.discard)(id(optimizer))

    def is_late(self, optimizer: Optimizer) -> bool:
        """Whether its turn comes after the one that counts, as far as was seen."""
        return id(optimizer) in self._late and not self.is_primary(optimizer)

    def place(self, optimizer: Optimizer, completed: int) -> int:
        """The step that the step of an optimizer belongs to, with so many of them counted."""
        return completed - self.is_late(optimizer)

    def place_of_loss(self, used: Set[int], completed: int) -> int:
        """The step that a loss belongs to which depends on tensors of these ids: the one before, where its turn is that
        of an optimizer which has not yet had it there, as in a GAN the generator's after the discriminator's."""
        for optimizer in self._known[1:]:
            if self._uses_some_of(optimizer, used) and self._is_awaited(optimizer, used, completed):
                return completed - 1
        return completed

    def _uses_some_of(self, optimizer: Optimizer, used: Set[int]) -> bool:
        return any(id(parameter.tensor) in used for parameter in self.members(optimizer))

    def _is_awaited(self, optimizer: Optimizer, used: Set[int], completed: int) -> bool:
        """Whether it will step with such a loss before the step that was counted last is over."""
        aftermath = self.aftermaths.get(id(optimizer))
        if aftermath is None or aftermath.step >= completed - 1:
            return False
        if aftermath.step >= 0:
            return id(optimizer) in self._apart
        # Its first turn ever, unless the loss is that of the one that counts, too.
        counting, uses = self._known[0], self._registry.uses
        known = any(uses.last(id(p.tensor)) is not None for p in self.members(optimizer))
        shared = known and self._uses_some_of(counting, used)
        return self.has_stepped(counting) and not shared

    def has_stepped(self, optimizer: Optimizer) -> bool:
        """Whether it has stepped since `new_round`."""
        return id(optimizer) in self._stepped

    def all_stepped(self) -> bool:
        """Whether every known optimizer has stepped since `new_round`."""
        return all(id(optimizer) in self._stepped for optimizer in self._known)

    def new_round(self) -> None:
        """A step's record is complete."""
        self._stepped.clear()

    def rates(self) -> dict[str, Number]:
        """`tv/lr/<i>` of every parameter group of every optimizer, in order."""
        rates: dict[str, Number] = {}
        groups = (group for optimizer in self._known for group in optimizer.param_groups)
        for index, group in enumerate(groups):
            rate = group.get("lr")
            if isinstance(rate, Tensor):
                rates[f"tv/lr/{index}"] = number(rate.detach().clone())
            elif rate is not None:
                rates[f"tv/lr/{index}"] = float(rate)
        return rates


def _tensors(optimizer: Optimizer) -> Iterator[Tensor]:
    return chain.from_iterable(group["params"] for group in optimizer.param_groups)


def _is_among(optimizer: Optimizer, others: Sequence[Optimizer]) -> bool:
    return any(optimizer is other for other in others)


def has_closure(args: Any, kwargs: Any) -> bool:
    """Whether `step` was called with a closure: then gradients come to be inside it.

    The hooks get the arguments of the unbound method, so the optimizer itself comes first.
    """
    given = [arg for arg in args if not isinstance(arg, Optimizer)]
    return bool(given and callable(given[0])) or kwargs.get("closure") is not None
