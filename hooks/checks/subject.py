"""What is checked: copies of the model and its optimizer, some batches, and how a loss is made of them."""

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainvitals.hooks.checks.report import PreflightError
from trainvitals.hooks.observe.modes import drop_rate
from trainvitals.hooks.registry import every_tensor

Batch = Any
"""A tuple or list whose last entry is the target, a mapping of arguments, or a tensor."""

BATCHES = 4
"""Batches that are kept for the checks."""


class Trained(NamedTuple):
    """A copy that may be trained and thrown away."""

    model: nn.Module
    optimizer: Optimizer


class Subject:
    """The user's objects are read here and never written; every check gets copies of its own."""

    def __init__(
        self, model: nn.Module, data: Any, loss: Callable[..., Any] | None, optimizer: Optimizer
    ) -> None:
        """Raises PreflightError for what is no model, no data, or cannot be copied."""
        if not isinstance(model, nn.Module):
            raise PreflightError(
                f"Expected a torch.nn.Module as model; got {type(model).__name__}."
            )
        if not isinstance(optimizer, Optimizer):
            raise PreflightError(
                f"Expected a torch.optim.Optimizer as optimizer; got {type(optimizer).__name__}."
            )
        if isinstance(data, Iterator):
            raise PreflightError(
                "Give the loader itself, not iter(loader): its batches would be used up."
            )
        self._pair = model, optimizer
        self._loss = loss
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.loader = None if isinstance(data, Tensor | tuple | list | Mapping) else data
        try:
            self.batches: list[Batch] = (
                [data] if self.loader is None else list(islice(iter(self.loader), BATCHES))
            )
        except TypeError as error:
            raise PreflightError(
                f"Expected a batch or an iterable of batches; got {type(data).__name__}."
            ) from error
        if not self.batches:
            raise PreflightError("The loader gives no batch.")
        if loss is None and not isinstance(self.batches[0], Mapping):
            raise PreflightError(
                "A loss function is needed, unless batches are mappings and outputs have a loss."
            )

    def copied(self) -> Trained:
        """A copy of the model in training mode, and of the optimizer, which holds the copy's parameters."""
        try:
            model, optimizer = copy.deepcopy(self._pair)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise PreflightError(
                f"The model or its optimizer cannot be copied: {error}."
            ) from error
        return Trained(model.train(), optimizer)

    def calm(self) -> Trained:
        """A copy without dropout, and an optimizer without weight decay."""
        trained = self.copied()
        for module in trained.model.modules():
            if drop_rate(module) > 0:
                module.eval()
        for group in trained.optimizer.param_groups:
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
        return trained

    def output(self, model: nn.Module, batch: Batch) -> Any:
        """The model's output for a batch."""
        inputs = to_device(inputs_of(batch), self.device)
        return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of a batch. Raises PreflightError when it is no single number."""
        output = self.output(model, batch)
        if self._loss is None:
            loss = output["loss"] if isinstance(output, Mapping) else getattr(output, "loss", None)
        else:
            target = to_device(target_of(batch), self.device)
            loss = self._loss(output, target) if target is not None else self._loss(output)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise PreflightError(
                f"Expected the loss as a tensor with one element; got {loss!r:.80}."
            )
        return loss

    def step(self, trained: Trained, batch: Batch) -> float:
        """One step of a copy; the loss before it."""

        def closure() -> Tensor:
            trained.optimizer.zero_grad()
            loss = self.loss(trained.model, batch)
            torch.autograd.backward(loss)
            return loss

        loss: Any = trained.optimizer.step(closure)  # type: ignore[arg-type]  # torch's own type is too narrow
        return float(loss.detach())


def inputs_of(batch: Batch) -> Any:
    """The arguments of the model: a mapping, or a tuple."""
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, Tensor):
        return (batch,)
    return tuple(batch[:-1]) if len(batch) > 1 else tuple(batch)


def target_of(batch: Batch) -> Any:
    """The target; None where the batch has none of its own."""
    return batch[-1] if isinstance(batch, tuple | list) and len(batch) > 1 else None


def samples_of(batch: Batch) -> int:
    """Samples in a batch: the length of its first tensor."""
    return next((len(tensor) for tensor in every_tensor(batch) if tensor.dim()), 1)


def part(batch: Batch, samples: slice) -> Batch:
    """Some samples of a batch: of every tensor that is as long as the first one."""
    count = samples_of(batch)
    return mapped(
        batch, lambda tensor: tensor[samples] if tensor.dim() and len(tensor) == count else tensor
    )


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same tuples, lists and mappings with changed tensors."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [mapped(item, change) for item in value]
    return value


def to_device(value: Any, device: torch.device) -> Any:
    """The same values where the model is."""
    return mapped(value, lambda tensor: tensor.to(device))


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever is drawn inside, the random numbers after it are those that would have come."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
