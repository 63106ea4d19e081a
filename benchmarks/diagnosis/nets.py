"""The small nets that are trained: each a real member of its family, a second's work on one thread."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def named(*layers: tuple[str, nn.Module]) -> nn.Sequential:
    """Layers in a row, under names that a finding can be compared with."""
    model = nn.Sequential()
    for name, layer in layers:
        model.add_module(name, layer)
    return model


def mlp(
    inputs: int,
    outputs: int,
    width: int = 64,
    depth: int = 2,
    act: type[nn.Module] = nn.ReLU,
    dropout: float = 0.0,
    norm: type[nn.Module] | None = None,
) -> nn.Sequential:
    """fc1, act1, fc2, act2, ..., head; a norm before and dropout after each activation if wanted."""
    layers: list[tuple[str, nn.Module]] = []
    for index in range(1, depth + 1):
        layers.append((f"fc{index}", nn.Linear(inputs, width)))
        if norm is not None:
            layers.append((f"norm{index}", norm(width)))
        layers.append((f"act{index}", act()))
        if dropout:
            layers.append((f"drop{index}", nn.Dropout(dropout)))
        inputs = width
    return named(*layers, ("head", nn.Linear(inputs, outputs)))


def cnn(width: int = 8, norm: bool = True) -> nn.Sequential:
    """Two convolutions over a digit given as a vector."""
    layers: list[tuple[str, nn.Module]] = [("image", nn.Unflatten(1, (1, 8, 8)))]
    channels = 1
    for index, out in ((1, width), (2, 2 * width)):
        layers.append((f"conv{index}", nn.Conv2d(channels, out, 3, padding=1, bias=not norm)))
        if norm:
            layers.append((f"bn{index}", nn.BatchNorm2d(out)))
        layers.append((f"relu{index}", nn.ReLU()))
        channels = out
    tail = [("pool", nn.MaxPool2d(2)), ("flat", nn.Flatten())]
    return named(*layers, *tail, ("head", nn.Linear(2 * width * 16, 10)))


class Block(nn.Module):
    """A pre-norm transformer block, written out so that every layer is seen by name."""

    def __init__(
        self, width: int, heads: int, causal: bool, act: type[nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.act, self.down = (
            nn.Linear(width, 2 * width),
            act(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        heads = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=self.causal)
        x = x + self.mix(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.down(self.act(self.up(self.norm2(x))))


class RowTransformer(nn.Module):
    """The eight rows of a digit as eight tokens."""

    def __init__(self, width: int = 32, blocks: int = 2, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.ModuleList(Block(width, 4, False, act) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.view(-1, 8, 8)) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class CharTransformer(nn.Module):
    """A language model of characters, GPT-2's initialisation, tied weights if wanted."""

    def __init__(
        self, vocabulary: int, context: int, width: int = 32, blocks: int = 2, tied: bool = False
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, 4, True) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                down = name.endswith(("mix.weight", "down.weight"))
                nn.init.normal_(parameter, 0, 0.02 / math.sqrt(2 * blocks) if down else 0.02)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Recurrent(nn.Module):
    """The eight rows of a digit as a sequence."""

    def __init__(self, kind: type[nn.Module] = nn.GRU, width: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.rnn = kind(8, width, layers, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.view(-1, 8, 8))[0][:, -1])


class CharRecurrent(nn.Module):
    """A language model of characters on an LSTM or GRU."""

    def __init__(self, vocabulary: int, kind: type[nn.Module] = nn.LSTM, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 24)
        self.rnn = kind(24, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(tokens))[0])


class Residual(nn.Module):
    """Pre-norm residual blocks on a vector; the branches start at zero if wanted."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int = 4, width: int = 48, zero: bool = True
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.branches = nn.ModuleList(
            named(
                ("norm", nn.LayerNorm(width)),
                ("up", nn.Linear(width, 2 * width)),
                ("act", nn.ReLU()),
                ("down", nn.Linear(2 * width, width)),
            )
            for _ in range(blocks)
        )
        if zero:
            for branch in self.branches:
                nn.init.zeros_(branch.down.weight)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = x + branch(x)
        return self.head(self.norm(x))
