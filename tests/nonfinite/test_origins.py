"""A forward pass that breaks where the way from the fault to the loss is hard to follow."""

import math
from collections import UserDict
from typing import Any

import torch
from nonfinite.bench import (
    BATCH,
    CLASSES,
    WIDTH,
    WORDS,
    Case,
    Fault,
    Found,
    Training,
    features,
    spoil,
    table,
)
from nonfinite.models import Net, head, layer, lower, named, words
from nonfinite.test_silence import Scores
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint


def case(code: Any, found: Found, steps: tuple[int, ...] = (7, 41), **parts: Any) -> Case:
    """`parts`: functions that make the layers, beside the usual lower one and head, or arguments of `Training`."""
    known = Training.__dataclass_fields__
    arguments = {key: value for key, value in parts.items() if key in known}

    def build() -> Training:
        layers = {key: make() for key, make in parts.items() if key not in known}
        return Training(Net(code, **{"lower": lower(), **layers, "head": head()}), **arguments)

    return Case(build, found, steps)


def middle(name: str, make: Any, *spread: str) -> Case:
    """The usual layers round one named `name`."""
    found = Found("forward", name, spread=spread or None)
    return case(lambda net, x: net.head(getattr(net, name)(net.lower(x))), found, **{name: make})


def log_of_zero() -> nn.Module:
    return Fault(lambda x: torch.log(x * 0))


# Negative infinities: meant, or the origin


class Hidden(nn.Module):
    """Attention scores of which some, and at the faulty step all of one row, are hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.on = Fault(spoil)

    def forward(self, x: Tensor) -> Tensor:
        hidden = (torch.arange(WIDTH) > 2).expand_as(x).clone()
        hidden[1] |= self.on.on
        return x.masked_fill(hidden, -math.inf)


def mask(net: Any, x: Tensor) -> Any:
    inner = net.inner(x)
    return net.softmax(inner.masked_fill(torch.tensor(net.on.on), -math.inf))


def packed(net: Any, ids: Tensor) -> Any:
    hidden = net.embed(ids)
    hidden = torch.log(hidden * 0) if net.on.on else hidden
    sequence = pack_padded_sequence(hidden, torch.full((BATCH,), 3), batch_first=True)
    return net.head(net.rnn(sequence)[1][-1])


NEGATIVE = {
    "a log of zero, handed on by its name": case(
        lambda net, x: net.head(input=net.log(net.lower(x))),
        Found("forward", "log"),
        log=log_of_zero,
    ),
    "a log of zero behind masked scores": case(
        lambda net, x: net.head(net.log(net.weigh(net.lower(x)))),
        Found("forward", "log"),
        weigh=lambda: nn.Sequential(Scores(), nn.Softmax(-1)),
        log=log_of_zero,
    ),
    "a log of zero behind scores that a container weighs": case(
        lambda net, x: net.head(net.log(net.weigh(net.lower(x)))),
        Found("forward", "log"),
        weigh=lambda: Net(lambda net, x: net.scores(x).softmax(-1), scores=Scores()),
        log=log_of_zero,
    ),
    "a row that is hidden, after others that were in part": case(
        lambda net, x: net.head(net.second(net.first(net.lower(x)))),
        Found("forward", "second.0"),
        first=lambda: nn.Sequential(Scores(), nn.Softmax(-1)),
        second=lambda: nn.Sequential(Hidden(), nn.Softmax(-1)),
    ),
    "a softmax of what its container hid": case(
        lambda net, x: net.head(net.part(net.lower(x))),
        Found("forward", "part.softmax"),
        part=lambda: Net(mask, inner=layer(), softmax=nn.Softmax(-1)),
    ),
    "code before a recurrent layer": case(
        packed,
        Found("forward", ""),
        batch=words,
        embed=lambda: nn.Embedding(WORDS, WIDTH),
        rnn=lambda: nn.GRU(WIDTH, WIDTH, batch_first=True),
    ),
    "log-probabilities of zero that the loss takes": case(
        lambda net, x: net.log(net.head(net.lower(x))),
        Found("forward", "log", spread=("",)),
        log=lambda: Fault(lambda x: torch.log(x.softmax(-1) * 0)),
        loss=lambda out, on: functional.nll_loss(out, torch.arange(BATCH) % CLASSES),
    ),
    "a target that is NaN beside masked logits": case(
        lambda net, x: net.head(net.lower(x)).masked_fill(torch.arange(CLASSES) > 2, -math.inf),
        Found("loss", ""),
        loss=lambda out, on: (
            functional.cross_entropy(out, torch.arange(BATCH) % 3) * (math.nan if on else 1.0)
        ),
    ),
}


@table(NEGATIVE)
def test_negative_infinities(check: Any, case: Case, step: int) -> None:
    check(case, step)


# What holds the bad tensor


class Parts(nn.Module):
    """Gives twelve tensors, of which a late one is bad."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.layer = Fault(spoil), layer()

    def forward(self, x: Tensor) -> list[Tensor]:
        parts = [self.layer(x) * index / 10 for index in range(12)]
        parts[10] = parts[10] * (math.nan if self.on.on else 1.0)
        return parts


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.on, self.layer = Fault(spoil), layer()

    def forward(self, x: Tensor) -> torch.distributions.Normal:
        mean = self.layer(x) * (math.nan if self.on.on else 1.0)
        return torch.distributions.Normal(mean, torch.ones(WIDTH), validate_args=False)


class Graph:
    """A batch of a class of its own."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


def bad(on: bool) -> Tensor:
    inputs = features(False)
    inputs[2, 1] = math.nan if on else 0.0
    return inputs


def spectrum(net: Any, x: Tensor) -> Any:
    return net.head(torch.fft.irfft(net.spectrum(torch.fft.rfft(net.lower(x))), n=WIDTH))


HOLDERS = {
    "the eleventh output": case(
        lambda net, x: net.head(sum(net.parts(net.lower(x)))),
        Found("forward", "parts"),
        parts=Parts,
    ),
    "a distribution": case(
        lambda net, x: net.head(net.policy(net.lower(x)).mean),
        Found("forward", "policy"),
        policy=Policy,
    ),
    "a complex output": case(
        spectrum,
        Found("forward", "spectrum", spread=("head", "")),
        spectrum=lambda: Fault(lambda x: x / (x * 0)),
    ),
    "a complex batch": case(
        lambda net, x: net.head(net.lower(x.abs())),
        Found("input", None),
        batch=lambda on: torch.complex(features(False), bad(on)),
    ),
    "the eleventh tensor of a batch": case(
        lambda net, batch: net.head(net.lower(sum(batch.values()))),
        Found("input", None),
        batch=lambda on: {str(i): bad(on and i == 10) for i in range(12)},
    ),
    "a mapping": case(
        lambda net, batch: net.head(net.lower(batch["x"])),
        Found("input", None),
        batch=lambda on: UserDict(x=bad(on)),
    ),
    "an object": case(
        lambda net, batch: net.head(net.lower(batch.x)),
        Found("input", None),
        batch=lambda on: Graph(bad(on)),
    ),
}


@table(HOLDERS)
def test_whatever_holds_the_bad_tensor(check: Any, case: Case, step: int) -> None:
    check(case, step)


# Layers and the code round them


def overwrite(net: Any, x: Tensor) -> Any:
    hidden = net.inner(x)
    hidden += x * net.broken(torch.ones(()))
    return net.after(hidden)


def changed(inner: Any) -> Case:
    """Code that changes the output of a layer with a state or by chance."""
    return middle("part", lambda: Net(overwrite, inner=inner(), after=layer()))


class Turns(nn.Module):
    """Is bad in its second turn of three, and has a part that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.inner, self.count = Fault(spoil), layer(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        out: Tensor = self.inner(x) * (math.nan if self.on.on and self.count % 3 == 2 else 1.0)
        return out


def turns(net: Any, x: Tensor) -> Any:
    hidden = net.lower(x)
    for part in (net.first, net.turns, net.last):
        for _ in range(3):
            hidden = part(hidden)
    return net.head(hidden)


def shared() -> Training:
    inner = layer()
    first = Net(lambda net, x: net.inner(x), inner=inner)
    second = Net(lambda net, x: net.inner(net.broken(x)), inner=inner)
    code = lambda net, x: net.head(net.second(net.first(net.lower(x))))  # noqa: E731
    return Training(Net(code, lower=lower(), first=first, second=second, head=head()))


def repeated() -> Training:
    """A row in which the same layer stands twice; its second call overflows."""
    inner, act = layer(), nn.LeakyReLU(0.5)
    model = named(lower=lower(), inner=inner, act=act, again=inner, act2=act, head=head())

    def before(training: Training) -> None:
        inner.weight.data.fill_diagonal_(1e25)

    return Training(model, before=before)


def put(name: str, value: float, place: int) -> Any:
    def before(training: Training) -> None:
        training.model.get_parameter(name).data[place] = value

    return before


def segment(net: Any, x: Tensor) -> Any:
    return net.head(checkpoint(net.part, net.lower(x), use_reentrant=True))


def two_losses(training: Training, loss: Tensor) -> None:
    """One that is fine, whose graph is kept, and then the faulty one."""
    logits, penalty = training.parts  # type: ignore[attr-defined]
    logits.square().mean().backward(retain_graph=True)
    penalty.square().mean().backward()


def penalised() -> Training:
    def code(net: Any, x: Tensor) -> Any:
        hidden = net.lower(x)
        return net.head(hidden), net.penalty(hidden)

    model = Net(code, lower=lower(), head=head(), penalty=Fault(spoil))
    training = Training(model, backward=two_losses)

    def loss(output: Any, on: bool) -> Tensor:
        training.parts = output  # type: ignore[attr-defined]
        return output[0].square().mean() + output[1].square().mean()

    training.loss = loss
    return training


LAYERS = {
    "a layer that works in place, between samples": case(
        lambda net, x: net.head(net.part(net.lower(x))),
        Found("forward", "part.bad"),
        part=lambda: named(a=layer(), bad=Fault(lambda x: x.div_(torch.zeros(()))), b=layer()),
        watch={"interval": 1000},
    ),
    "a batch norm that overflows and remembers it": case(
        lambda net, x: net.head(net.norm(net.up(net.lower(x)))),
        Found("forward", "norm"),
        up=lambda: Fault(lambda x: x.sign() * 3e38),
        norm=lambda: nn.BatchNorm1d(WIDTH),
    ),
    "a row of an embedding that only the head reads": case(
        lambda net, x: functional.linear(net.mix(net.embed(x).mean(1)), net.embed.weight),
        Found("parameter", "embed", "embed.weight"),
        batch=words,
        embed=lambda: nn.Embedding(WORDS, WIDTH),
        mix=layer,
        before=put("embed.weight", math.nan, 0),  # no word of any batch
    ),
    "code that changes what batch norm gave": changed(lambda: nn.BatchNorm1d(WIDTH)),
    "code that changes what dropout gave": changed(lambda: nn.Dropout(0.1)),
    "the second of several turns": case(
        turns, Found("forward", "turns"), first=layer, turns=Turns, last=layer
    ),
    "the second parent of a shared layer": Case(shared, Found("forward", "second"), (7, 41)),
    "the second place of a layer in a row": Case(repeated, Found("forward", "inner"), (7, 41)),
    "code inside a reentrant checkpoint": case(
        segment,
        Found("forward", "part"),
        part=lambda: Net(lambda net, x: net.b(net.broken(net.a(x))), a=layer(), b=layer()),
    ),
    "another loss of a graph that is kept": Case(penalised, Found("forward", "penalty"), (7, 41)),
}


@table(LAYERS)
def test_layers_and_the_code_round_them(check: Any, case: Case, step: int) -> None:
    check(case, step)
