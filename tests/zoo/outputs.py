"""Outputs and tensors of unusual kinds."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.zoo.architectures import small_net
from tests.zoo.harness import Condition
from tests.zoo.session import STEPS, Session


class Pair(nn.Module):
    """Gives a tuple of which the first part is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_net()

    def forward(self, inputs: Tensor) -> tuple[None, Tensor, list[Tensor]]:
        return None, self.inner(inputs) * 2, [inputs]


def tuple_outputs(zoo: Session) -> None:
    model = nn.Sequential(Pair())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, call=lambda inputs: model(inputs)[1])


class Named(nn.Module):
    """Gives a dict with integers before the floats."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_net()

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        logits = self.inner(inputs)
        return {"choice": logits.argmax(-1), "doubled": logits * 2}


def dict_outputs(zoo: Session) -> None:
    model = nn.Sequential(Named())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, call=lambda inputs: model(inputs)["doubled"])


@dataclass
class Answer:
    """An output as libraries of transformers give it."""

    loss: Tensor | None
    logits: Tensor


class Answering(nn.Module):
    """Gives a dataclass, nested in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_net()

    def forward(self, inputs: Tensor) -> tuple[Answer]:
        return (Answer(None, self.inner(inputs) * 2),)


def dataclass_outputs(zoo: Session) -> None:
    model = nn.Sequential(Answering())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, call=lambda inputs: model(inputs)[0].logits)


def nested_tensors(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    for step in range(STEPS):
        parts = [torch.randn(length, 8) for length in (2, 5, 1 + step)]
        ragged = torch.nested.nested_tensor(parts, layout=torch.jagged)
        optimizer.zero_grad()
        loss = model(ragged).values().square().mean()
        loss.backward()
        zoo.step(optimizer)
        zoo.loss(loss)


class ComplexFilter(nn.Module):
    """A learnt filter in the frequency domain, between real layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.spectrum = Spectrum()
        self.filter = nn.Parameter(torch.randn(5, dtype=torch.complex64))
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        filtered = self.spectrum(self.first(inputs)) * self.filter
        return self.head(torch.fft.irfft(filtered, n=8))


class Spectrum(nn.Module):
    """A layer with a complex output."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.fft.rfft(inputs)


def complex_tensors(zoo: Session) -> None:
    model = ComplexFilter()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


class Quantised(nn.Module):
    """Integer weights and codes, a float scale."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randint(-8, 8, (6, 8)), requires_grad=False)
        self.scale = nn.Parameter(torch.full((6, 1), 0.1))
        self.bucket = Bucket()
        self.head = nn.Linear(6, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = nn.functional.linear(inputs, self.codes * self.scale)
        return self.head(hidden) + self.bucket(hidden).sum(-1, keepdim=True)


class Bucket(nn.Module):
    """A layer with an integer output."""

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs > 0).long()


def integer_tensors(zoo: Session) -> None:
    model = Quantised()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer)


_COMPLEX = "statistics are of real numbers; a complex parameter counts in the gradient norm"
_INTEGER = "integer parameters are not trained"
CONDITIONS = [
    Condition("outputs in tuples", tuple_outputs),
    Condition("outputs in dicts", dict_outputs),
    Condition("outputs in dataclasses", dataclass_outputs),
    Condition("NestedTensors", nested_tensors),
    Condition(
        "complex tensors and parameters",
        complex_tensors,
        dict.fromkeys(("gradients", "weights", "update ratio"), _COMPLEX),
    ),
    Condition("integer tensors and parameters", integer_tensors, {"weights": _INTEGER}),
]
