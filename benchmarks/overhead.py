"""What watching adds to a step: the same training with and without it, in interleaved blocks of one process.

Prints the median ratio of block times over pairs of blocks, its spread, and the share that the hooks report themselves.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv

PAIRS = 7
BLOCK_S = 1.5


def mlp() -> tuple[nn.Module, torch.Tensor]:
    """The digits net of the README, batch 64."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), torch.randn(64, 64)


def cnn() -> tuple[nn.Module, torch.Tensor]:
    """Four convolutions with batch norm on 32 x 32 images, batch 64."""
    channels = [3, 32, 64, 128, 128]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)), torch.randn(64, 3, 32, 32)


def deep() -> tuple[nn.Module, torch.Tensor]:
    """100 tanh layers of width 128, batch 128: many small modules, the worst case for hooks."""
    layers = [layer for _ in range(100) for layer in (nn.Linear(128, 128), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(128, 10)), torch.randn(128, 128)


MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "100 x tanh": deep,
}


def block(step: Callable[[], None], steps: int) -> float:
    """Seconds for one step, averaged over `steps` steps."""
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - begin) / steps


def measure(build: Callable[[], tuple[nn.Module, torch.Tensor]]) -> tuple[float, list[float]]:
    """Plain step time in seconds, and the ratio watched : plain of each pair of blocks."""
    torch.manual_seed(0)
    model, x = build()
    y = torch.randint(10, (len(x),))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    block(step, 20)
    steps = max(20, int(BLOCK_S / block(step, 20)))
    plain, ratios = [], []
    for _ in range(PAIRS):
        plain.append(block(step, steps))
        with tempfile.TemporaryDirectory() as folder:
            run = tv.init(project="bench", mode="offline", dir=folder)
            tv.watch(model, optimizer)
            ratios.append(block(step, steps) / plain[-1])
            run.finish()
    return statistics.median(plain), ratios


def main() -> None:
    """Print one line a model."""
    torch.set_num_threads(1)
    print(f"{'model':<12} {'step':>9} {'watched':>9} {'spread':>18}")
    for name, build in MODELS.items():
        plain, ratios = measure(build)
        spread = f"{min(ratios) - 1:+.1%} … {max(ratios) - 1:+.1%}"
        print(
            f"{name:<12} {plain * 1e3:6.2f} ms {statistics.median(ratios) - 1:+9.1%} {spread:>18}"
        )


if __name__ == "__main__":
    main()
