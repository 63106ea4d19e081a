"""The four trainings that are measured, each with real data or its shape, and the loop of a real script."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@dataclass
class Training:
    """A model in training. Two built with the same seed do bit-identical work, step by step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    """Draws inputs and integer targets on the model's device."""
    device: str
    _generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        # on the device: indexing with numbers drawn elsewhere would wait for the device at each step
        self._generator = torch.Generator(self.device).manual_seed(0)

    def forward(self) -> Tensor:
        """The loss of the next batch, with its graph."""
        x, y = self.batch(self._generator)
        logits = self.model(x)
        return F.cross_entropy(logits.flatten(0, -2), y.flatten())

    def update(self, loss: Tensor) -> None:
        """Backward and the optimizer's step."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def step(self) -> Tensor:
        """One step; returns its loss."""
        loss = self.forward()
        self.update(loss)
        return loss


def _picked(x: Tensor, y: Tensor, size: int) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """Random batches of `size` from tensors that hold the whole data set."""

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(x), (size,), generator=generator, device=x.device)
        return x[chosen], y[chosen]

    return batch


def _mlp(device: str) -> Training:
    """64-256-128-10 with ReLU on scikit-learn's digits, Adam, batch 64: calls cost as much as arithmetic."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32, device=device) / 16
    y = torch.tensor(labels, dtype=torch.int64, device=device)
    model = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    ).to(device)
    return Training(model, torch.optim.Adam(model.parameters(), 1e-3), _picked(x, y, 64), device)


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut (He et al. 2016), with one in-place ReLU used twice."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(N, before, H, W)` to `(N, after, H / stride, W / stride)`."""
        inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(inner + self.shortcut(x))


def _resnet18(device: str) -> Training:
    """ResNet-18 in its CIFAR form (11.2 M parameters), noise in the shape of CIFAR-10, SGD, batch 4."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
    ]
    before = 64
    for after, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Residual(before, after, stride), Residual(after, after, 1)]
        before = after
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    model = nn.Sequential(*layers).to(device)
    x, y = torch.randn(256, 3, 32, 32), torch.randint(10, (256,))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    return Training(model, optimizer, _picked(x.to(device), y.to(device), 4), device)


class Block(nn.Module):
    """A pre-norm transformer block with causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(N, T, width)` to the same shape."""
        split = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = split.unbind(0)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """A small decoder: learnt positions, no dropout, an output layer of its own."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token numbers `(N, T)` to logits `(N, T, vocabulary)`."""
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.positions)))


def _gpt(device: str) -> Training:
    """6 x 256 GPT on the characters of Python's own help texts, AdamW, 4 x 64 tokens a step."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[key] for key in sorted(topics)).encode("ascii", "ignore")
    data = torch.tensor(list(text), dtype=torch.int64, device=device)
    length = 64
    ahead = torch.arange(length + 1, device=device)
    model = GPT(128, length, 256, 6, 4).to(device)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        begins = torch.randint(len(data) - length, (4, 1), generator=generator, device=device)
        window = data[begins + ahead]
        return window[:, :-1], window[:, 1:]

    return Training(model, torch.optim.AdamW(model.parameters(), 3e-4), batch, device)


def _tanh100(device: str) -> Training:
    """100 tanh layers of width 128, SGD, batch 128: the most module calls for the least arithmetic."""
    layers: list[nn.Module] = []
    for _ in range(100):
        linear = nn.Linear(128, 128)
        nn.init.xavier_uniform_(
            linear.weight
        )  # torch's own start lets gradients vanish to denormals
        layers += [linear, nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(128, 10)).to(device)
    x, y = torch.randn(1024, 128).to(device), torch.randint(10, (1024,)).to(device)
    return Training(model, torch.optim.SGD(model.parameters(), 1e-3), _picked(x, y, 128), device)


def _toy(device: str) -> Training:
    """Two tiny layers: for the harness's own test."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(device)
    x, y = torch.randn(16, 4).to(device), torch.randint(3, (16,)).to(device)
    return Training(model, torch.optim.SGD(model.parameters(), 1e-2), _picked(x, y, 4), device)


_BUILDERS = {
    "mlp": _mlp,
    "resnet18": _resnet18,
    "gpt": _gpt,
    "tanh100": _tanh100,
    "toy": _toy,
}
MODELS = ("mlp", "resnet18", "gpt", "tanh100")
"""The names that are measured."""


def build(name: str, device: str = "cpu") -> Training:
    """A fresh training of that name; every call gives an identical one."""
    torch.manual_seed(0)
    return _BUILDERS[name](device)
