"""Base models, each small and with one place for a fault."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from nonfinite.bench import (
    BATCH,
    CLASSES,
    FEATURES,
    LENGTH,
    WIDTH,
    WORDS,
    Fault,
    features,
    spoil,
)
from torch import Tensor, nn


class Base(NamedTuple):
    """A model with a place for a fault."""

    build: Callable[[nn.Module], nn.Module]
    """Model with the given module at `place`."""
    place: str
    below: str
    """The layer with parameters that backward meets first after `place`."""
    spread: tuple[str, ...]
    """Where a bad value of `place` goes, in the order of the calls."""
    batch: Callable[[bool], Any] = features


def named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


class Net(nn.Module):
    """Some layers, and the code that calls them."""

    def __init__(self, code: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.code, self.on = code, Fault(spoil)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, inputs: Tensor) -> Any:
        return self.code(self, inputs)

    def broken(self, inputs: Tensor) -> Tensor:
        """`inputs`, spoilt by this module's own code at the faulty step."""
        return inputs * math.nan if self.on.on else inputs


def layer() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def lower() -> nn.Linear:
    return nn.Linear(FEATURES, WIDTH)


def head() -> nn.Linear:
    return nn.Linear(WIDTH, CLASSES)


def mlp(middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return named(
        inputs=nn.Linear(FEATURES, WIDTH),
        act=nn.ReLU(),
        lower=nn.Linear(WIDTH, WIDTH),
        middle=middle,
        hidden=nn.Linear(WIDTH, WIDTH),
        head=nn.Linear(WIDTH, CLASSES),
    )


def wide(middle: nn.Module | None = None) -> nn.Sequential:
    """A model too large to look at every weight of it at every step."""
    torch.manual_seed(1)
    return named(
        lower=nn.Linear(FEATURES, 512),
        big=nn.Linear(512, 512),
        middle=middle or nn.Identity(),
        head=nn.Linear(512, CLASSES),
    )


def images(on: bool) -> Tensor:
    return torch.randn(BATCH, 1, 8, 8)


def cnn(middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(2)
    block = nn.Sequential(nn.Conv2d(4, 4, 3), middle, nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    return named(
        stem=nn.Conv2d(1, 4, 3),
        norm=nn.BatchNorm2d(4),
        act=nn.ReLU(inplace=True),
        block=block,
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        head=nn.Linear(4, CLASSES),
    )


def words(on: bool) -> Tensor:
    return torch.randint(1, WORDS, (BATCH, LENGTH))


class Attention(nn.Module):
    """One head with an additive causal mask of minus infinities: intended, whatever else is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
        self.register_buffer("mask", mask)

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = self.mix(inputs).chunk(3, dim=-1)
        scores = query @ key.transpose(-1, -2) + self.mask
        mixed: Tensor = self.out(scores.softmax(-1) @ value)
        return mixed


class Block(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU(), middle, nn.Linear(12, WIDTH))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs + self.attention(self.norm(inputs))
        out: Tensor = hidden + self.mlp(hidden)
        return out


class Transformer(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList([Block(nn.Identity()), Block(middle)])
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        for block in self.blocks:
            hidden = block(hidden)
        out: Tensor = self.head(hidden[:, -1])
        return out


def transformer(middle: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return Transformer(middle)


class Reader(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.middle, self.head = middle, nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embed(ids))
        out: Tensor = self.head(self.middle(hidden[:, -1]))
        return out


def lstm(middle: nn.Module) -> nn.Module:
    torch.manual_seed(4)
    return Reader(middle)


class Residual(nn.Module):
    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = inputs + self.body(inputs)
        return out


def residual(middle: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    return named(
        stem=nn.Linear(FEATURES, WIDTH),
        first=Residual(nn.Linear(WIDTH, WIDTH), nn.Tanh()),
        second=Residual(nn.Linear(WIDTH, WIDTH), middle),
        head=nn.Linear(WIDTH, CLASSES),
    )


class Experts(nn.Module):
    """Each sample goes to one of three experts."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        kinds = (nn.Tanh(), middle, nn.Tanh())
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(FEATURES, WIDTH), kind, nn.Linear(WIDTH, WIDTH))
            for kind in kinds
        )

    def forward(self, inputs: Tensor) -> Tensor:
        out = inputs.new_zeros(len(inputs), WIDTH)
        owner = torch.arange(len(inputs)) % 3
        for index, expert in enumerate(self.experts):
            out = out.index_add(0, (owner == index).nonzero()[:, 0], expert(inputs[owner == index]))
        return out


def mixture(middle: nn.Module) -> nn.Module:
    torch.manual_seed(6)
    return named(mix=Experts(middle), head=nn.Linear(WIDTH, CLASSES))


class Bag(nn.Module):
    """Words and positions, averaged over the words that are there; word 0 is padding."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.register_buffer("positions", torch.randn(LENGTH, WIDTH))
        self.pool = Mean()
        self.project = nn.Linear(WIDTH, WIDTH)
        self.middle, self.head = middle, nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.words(ids) + self.get_buffer("positions")
        out: Tensor = self.head(self.middle(self.project(self.pool(hidden, ids != 0))))
        return out


class Mean(nn.Module):
    """Mean over the places that are there: 0/0 where there are none."""

    def forward(self, hidden: Tensor, there: Tensor) -> Tensor:
        weight = there[..., None].float()
        return (hidden * weight).sum(1) / weight.sum(1)


def bag(middle: nn.Module) -> nn.Module:
    torch.manual_seed(7)
    return Bag(middle)


BASES = {
    "mlp": Base(mlp, "middle", "lower", ("hidden", "head", "")),
    "cnn": Base(
        cnn,
        "block.1",
        "block.0",
        ("block.2", "block.3", "block", "pool", "flat", "head", ""),
        images,
    ),
    "transformer": Base(
        transformer,
        "blocks.1.mlp.2",
        "blocks.1.mlp.0",
        ("blocks.1.mlp.3", "blocks.1.mlp", "blocks.1", "head", ""),
        words,
    ),
    "lstm": Base(lstm, "middle", "lstm", ("head", ""), words),
    "residual": Base(
        residual, "second.body.1", "second.body.0", ("second.body", "second", "head", "")
    ),
    "mixture": Base(
        mixture,
        "mix.experts.1.1",
        "mix.experts.1.0",
        ("mix.experts.1.2", "mix.experts.1", "mix", "head", ""),
    ),
    "bag": Base(bag, "middle", "project", ("head", ""), words),
}
