"""What a training of the zoo is written against: it says what it does, and its role decides what comes of it."""

import random
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import checkpoint as torch_checkpoint

import trainvitals.hooks as tv
from tests.zoo.reference import Reference, plain_model, row_name

STEPS = 6
POISON_STEP = 3
"""Step that meets a weight made NaN in the `POISONED` role; it is no sampled one."""


class Role(Enum):
    """Who looks at the training."""

    PLAIN = "nobody"
    REFERENCE = "independent measurements, of the simple form of the same computation"
    EVERY = "watched, every step sampled"
    DEFAULT = "watched, default settings"
    POISONED = "watched, next to no step sampled, and a weight becomes NaN"


_OPTIONS: dict[Role, dict[str, Any]] = {
    Role.EVERY: {"interval": 1, "strict": True},
    Role.DEFAULT: {},
    Role.POISONED: {"interval": 1000},
}


class Session:
    """One training in one role."""

    def __init__(self, role: Role, folder: str, rank: int = 0, world: int = 1) -> None:
        self.role, self.rank, self.world = role, rank, world
        self.folder = folder
        self.watched = role in _OPTIONS
        self.simple = role is Role.REFERENCE
        """Whether wrappers (compile, checkpoints, ranks) are to be left out."""
        self.losses: list[float] = []
        self.notes: list[str] = []
        """What else has to be the same in every role but the simple one."""
        self.models: list[nn.Module] = []
        self.optimizers: list[Any] = []
        self.poisoned = ""
        """Name of the parameter that was made NaN."""
        self.reference = Reference() if self.simple else None
        self._counts: dict[int, int] = {}
        """Steps of each optimizer since the last `watch`, by its id."""
        self._completed = 0
        self._named: list[nn.Module] = []
        """Models of the current run; their places make their prefixes."""
        self._watched: list[nn.Module] = []
        self._begun = False

    # What a training says

    def begin(self) -> None:
        """tv.init, as a notebook may say it again: from then on only the new run counts."""
        if self._begun and self.reference is not None:
            self.reference.close()
            self.reference = Reference()
        self._begun, self.poisoned = True, ""
        self._completed, self._counts, self._named = 0, {}, []
        if self.watched:
            tv.init(project="zoo", mode="offline", dir=self.folder)

    def watch(
        self,
        model: nn.Module | list[nn.Module],
        optimizer: Any = None,
        **options: Any,
    ) -> None:
        """The one line."""
        models = model if isinstance(model, list) else [model]
        given = optimizer if isinstance(optimizer, list) else [optimizer]
        given = [item for item in given if item is not None]
        self.models += [item for item in models if not any(item is m for m in self.models)]
        self.optimizers += given
        if not self._begun:
            self.begin()
        self._watched = models
        self._named += [item for item in models if not any(item is m for m in self._named)]
        self._completed += max(self._counts.values(), default=0)
        self._counts = {id(getattr(item, "optimizer", item)): 0 for item in given}
        if self.reference is not None:
            for item in models:
                self.reference.add(item)
        if self.watched:
            tv.watch(model, optimizer, **_OPTIONS[self.role], **options)

    def pause(self) -> None:
        """tv.detach: lets go of the models, and of what is known of their units."""
        if self.watched:
            tv.detach()
        if self.reference is not None:
            self.reference.restart_units()

    def gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Mark: unscaled, complete, not yet clipped."""
        if self.reference is not None:
            self.reference.gradients(optimizer)

    def step(
        self,
        optimizer: Any,
        by: Callable[[], Any] | None = None,
        *,
        closure: Callable[[], Tensor] | None = None,
        skipped: bool = False,
    ) -> None:
        """Step `optimizer`, `by` other means where they are given. `skipped`: a scaler will not let it."""
        inner = getattr(optimizer, "optimizer", optimizer)
        if self.reference is not None and not skipped:
            self.reference.before(inner, closure is not None)
        if by is not None:
            by()
        elif closure is not None:
            optimizer.step(closure)
        else:
            optimizer.step()
        if skipped:
            if self.reference is not None:
                self.reference.forget_marks()
            return
        if self.reference is not None:
            self.reference.after(inner, closure is not None)
        self._counts[id(inner)] = self._counts.get(id(inner), 0) + 1
        completed = self._completed + min(self._counts.values())  # all optimizers have stepped
        if self.role is Role.POISONED and completed == POISON_STEP and not self.poisoned:
            self._poison()

    def loss(self, loss: Tensor) -> None:
        """Note a loss."""
        self.losses.append(float(loss.detach().abs() if loss.is_complex() else loss.detach()))

    # Shared pieces of trainings

    def classify(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        steps: int = STEPS,
        shape: tuple[int, ...] = (12, 8),
        classes: int = 4,
        batches: Iterable[Tensor] | None = None,
        call: Callable[[Tensor], Any] | None = None,
        after: Callable[[int], None] | None = None,
    ) -> None:
        """Train a classifier on random data, drawn from the global generator."""
        drawn = batches if batches is not None else (torch.randn(shape) for _ in range(steps))
        for step, inputs in enumerate(drawn):
            labels = torch.randint(0, classes, (len(inputs),))
            optimizer.zero_grad()
            logits = (call or model)(inputs)
            loss = nn.functional.cross_entropy(logits, labels)
            loss.backward()
            self.step(optimizer)
            self.loss(loss)
            if after is not None:
                after(step)

    def compile(self, model: nn.Module, **options: Any) -> Any:
        """torch.compile, except where the simple form is measured."""
        return model if self.simple else torch.compile(model, **options)

    def checkpoint(self, function: Callable[..., Any], *args: Any, use_reentrant: bool) -> Any:
        """torch.utils.checkpoint, except where the simple form is measured."""
        if self.simple:
            return function(*args)
        return torch_checkpoint.checkpoint(function, *args, use_reentrant=use_reentrant)

    def _poison(self) -> None:
        for model in self._watched:
            index = next(place for place, item in enumerate(self._named) if item is model)
            prefix = f"model{index}." if index else ""
            for name, parameter in plain_model(model).named_parameters():
                if parameter.grad is not None and parameter.is_floating_point():
                    with torch.no_grad():
                        parameter.fill_(float("nan"))
                    self.poisoned = row_name(prefix + name)
                    return


def seed_everything(seed: int = 3) -> None:
    """Every generator that a training may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
