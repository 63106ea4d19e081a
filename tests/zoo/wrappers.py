"""Models that are checkpointed, compiled, traced."""

import os
import re
import shutil
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.architectures import small_net
from tests.zoo.harness import Condition, Train
from tests.zoo.session import STEPS, Session


class Checkpointed(nn.Module):
    """Computes its inner part again in backward."""

    def __init__(self, zoo: Session, reentrant: bool) -> None:
        super().__init__()
        self.first, self.inner, self.head = nn.Linear(8, 8), small_net(), nn.Linear(4, 4)
        self.compute, self.reentrant = zoo.checkpoint, reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.compute(self.inner, self.first(inputs), use_reentrant=self.reentrant)
        return self.head(hidden)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "compute"}


def _checkpointed(zoo: Session, reentrant: bool) -> None:
    model = Checkpointed(zoo, reentrant)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


def checkpoint_reentrant(zoo: Session) -> None:
    _checkpointed(zoo, reentrant=True)


def checkpoint_non_reentrant(zoo: Session) -> None:
    _checkpointed(zoo, reentrant=False)


def _compiled(backend: str, watch_first: bool) -> Train:
    def train(zoo: Session) -> None:
        torch._dynamo.reset()
        model = small_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about itself
            if watch_first:
                zoo.watch(model, optimizer)
            compiled = zoo.compile(model, backend=backend, fullgraph=True)
            if not watch_first:
                zoo.watch(compiled, optimizer)
            zoo.classify(compiled, optimizer)

    train.__name__ = f"compiled_{backend}_{'after' if watch_first else 'before'}_watch"
    return train


class Doubled(nn.Module):
    """A model of one's own: torch refuses to compile a bare nn.Sequential in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_net()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(inputs) * 2


def compiled_in_place(zoo: Session) -> None:
    torch._dynamo.reset()
    model = Doubled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not zoo.simple:
            model.compile(backend="eager", fullgraph=True)
        zoo.classify(model, optimizer)


def compiled_part(zoo: Session) -> None:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = zoo.compile(small_net(), backend="eager", fullgraph=True)
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), part, nn.Linear(4, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        zoo.watch(model, optimizer)
        zoo.classify(model, optimizer)


def _backward(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """The loss of a new batch, after its backward pass."""
    inputs, labels = torch.randn(12, 8), torch.randint(0, 4, (12,))
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    return loss


def compiled_optimizer(zoo: Session) -> None:
    torch._dynamo.reset()
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    zoo.watch(model, optimizer)

    def step() -> None:
        optimizer.step()

    compiled = step if zoo.simple else torch.compile(step, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(STEPS):
            loss = _backward(model, optimizer)
            zoo.step(optimizer, by=compiled)
            zoo.loss(loss)


def compiled_step(zoo: Session) -> None:
    torch._dynamo.reset()
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)

    def backward(inputs: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    @torch.compile(backend="eager")
    def step(inputs: Tensor, labels: Tensor) -> Tensor:
        loss = backward(inputs, labels)
        optimizer.step()
        return loss

    def whole(inputs: Tensor, labels: Tensor) -> None:
        zoo.loss(step(inputs, labels))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(STEPS):
            batch = torch.randn(12, 8), torch.randint(0, 4, (12,))
            if zoo.simple:
                zoo.loss(backward(*batch))
                zoo.step(optimizer)
            else:
                zoo.step(optimizer, by=partial(whole, *batch))


def compiled_clipping(zoo: Session) -> None:
    torch._dynamo.reset()
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    zoo.watch(model, optimizer)

    def clip() -> Tensor:
        return nn.utils.clip_grad_norm_(model.parameters(), 0.05)

    clipped = clip if zoo.simple else torch.compile(clip, backend="eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(STEPS):
            loss = _backward(model, optimizer)
            clipped()
            zoo.step(optimizer)
            zoo.loss(loss)


def traced(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)

    def trace(_: int) -> None:
        if zoo.simple:
            return
        example = torch.full((3, 8), 100.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and used
            copy = torch.jit.trace(model, example)
        with torch.no_grad():
            same = copy(example), model(example)
        torch.testing.assert_close(*same, rtol=0, atol=0, equal_nan=True)
        zoo.notes.append(re.sub(r"___torch_mangle_\d+\.", "", str(copy.graph)))

    trace(-1)
    zoo.classify(model, optimizer, after=trace)


def symbolically_traced(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)

    def trace(_: int) -> None:
        if zoo.simple:
            return
        example = torch.full((3, 8), 100.0)
        graph = torch.fx.symbolic_trace(model)
        with torch.no_grad():
            same = graph(example), model(example)
        torch.testing.assert_close(*same, rtol=0, atol=0, equal_nan=True)
        zoo.notes.append(graph.code)

    trace(-1)
    zoo.classify(model, optimizer, after=trace)


_CODE = "compiled code calls no modules"
_WHOLE = dict.fromkeys(("activations", "dead units", "histograms"), _CODE)
_CLIPPED = "the gradients are as compiled code has clipped them"
_NO_LOSS = "the loss is inside compiled code: a gradient is named"
_PART = dict.fromkeys(("activations", "dead units"), _CODE)
_COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")

CONDITIONS = [
    Condition("activation checkpointing, re-entrant", checkpoint_reentrant),
    Condition("activation checkpointing, not re-entrant", checkpoint_non_reentrant),
    *(
        Condition(
            f"torch.compile, {backend}, {'after' if watch_first else 'before'} watch",
            _compiled(backend, watch_first),
            _WHOLE,
            slow=backend != "eager",
            skip="" if backend != "inductor" or _COMPILER else "Inductor needs a C++ compiler",
            tolerance=1e-3 if backend == "inductor" else 1e-4,
        )
        for backend in ("eager", "aot_eager", "inductor")
        for watch_first in (False, True)
    ),
    Condition("torch.compile, module.compile()", compiled_in_place, _PART),
    Condition("torch.compile of a part", compiled_part, _PART),
    Condition("torch.compile of clip_grad_norm_", compiled_clipping, note=_CLIPPED),
    Condition("torch.compile of the optimizer's step", compiled_optimizer, slow=True),
    Condition(
        "torch.compile of a whole step", compiled_step, {**_WHOLE, "non-finite watch": _NO_LOSS}
    ),
    Condition("torch.jit.trace", traced),
    Condition("torch.fx.symbolic_trace", symbolically_traced),
]
