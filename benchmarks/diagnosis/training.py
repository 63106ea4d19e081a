"""A training loop as users write it, in pieces that a fault can replace one by one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

import trainvitals.hooks as tv
from benchmarks.diagnosis.data import Data

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass
class Training:
    """A model and what trains it. Injections change these fields."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    data: Data
    loss: Loss
    """Of a model, inputs and targets; a scalar."""
    steps: int = 400
    batch: int = 32
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    clip: float = 0.0
    validate: int = 50
    """Steps between two validations; 0 for none."""
    tell: bool = False
    """Whether batches are told with `tv.batch`; most users never do."""
    criterion: nn.Module | None = None
    watched: list[nn.Module] = field(default_factory=list)
    """What is watched, where that is not the model alone."""
    before: list[Callable[[int], None]] = field(default_factory=list)
    """Called with the step before each one."""
    corrupt: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = lambda x, y, step: (x, y)
    """What the loader makes of a batch at a step."""
    order: Callable[[int, torch.Generator], Tensor] = lambda n, g: torch.randperm(n, generator=g)
    """The order of an epoch's samples."""
    update: "Callable[[Training, Tensor, Tensor, int], Tensor] | None" = None
    """One whole optimizer step, where it is not the usual one; gives the loss."""
    on_ranks: "list[Callable[[Training, int], None]]" = field(default_factory=list)
    """Called on each of several ranks, with its number, once the model is wrapped."""
    evaluate: "Callable[[Training], dict[str, float]] | None" = None
    """One validation, where it is not the usual one."""

    @property
    def rate(self) -> float:
        """Learning rate of the first group, whatever a warm-up makes of it at the first step."""
        group = self.groups[0]
        return group.get("initial_lr", group["lr"])

    @property
    def groups(self) -> list[dict]:
        """The parameter groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """The usual step: loss, gradients set to zero, backward, clipping, optimizers, schedule."""
        loss = self.loss(self.model, x, y)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return loss

    def validation(self) -> dict[str, float]:
        """The usual validation: mean loss over the other split, and accuracy for classes."""
        self.model.eval()
        with torch.no_grad():
            found = {"val/loss": float(self.loss(self.model, self.data.x_val, self.data.y_val))}
            if self.data.classes > 2 and self.data.y_val.dim() == 1:
                right = self.model(self.data.x_val).argmax(1) == self.data.y_val
                found["val/accuracy"] = float(right.float().mean())
        self.model.train()
        return found


def run(training: Training, folder: Path, seed: int, interval: int | None) -> None:
    """Train, watched as a user would watch it, and leave the spool in `folder`."""
    generator = torch.Generator().manual_seed(seed)
    data, t = training.data, training
    batch = min(t.batch, len(data.x))
    order, place = t.order(len(data.x), generator), 0
    with tv.init(project="diagnosis", mode="offline", dir=folder):
        tv.watch(t.watched or t.model, t.optimizers, criterion=t.criterion, interval=interval)
        t.model.train()
        for step in range(t.steps):
            if place + batch > len(order):
                order, place = t.order(len(data.x), generator), 0
            chosen = order[place : place + batch]
            place += batch
            for change in t.before:
                change(step)
            x, y = t.corrupt(data.x[chosen], data.y[chosen], step)
            if t.tell:
                tv.batch(x, y)
            loss = t.step(x, y) if t.update is None else t.update(t, x, y, step)
            tv.log({"train/loss": loss})
            if t.validate and step % t.validate == t.validate - 1:
                tv.log(t.validation() if t.evaluate is None else t.evaluate(t))
