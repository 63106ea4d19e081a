"""What watching adds to a step: the same training with and without it, in interleaved blocks of one process.

Prints what the first 30 steps cost (20 of them are sampled, whatever a sample costs) and what the steps after them
cost, as medians over pairs of blocks, with the spread of the latter.
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
START = 30
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


def measure(
    build: Callable[[], tuple[nn.Module, torch.Tensor]],
) -> tuple[float, list[float], list[float]]:
    """Plain step time in seconds; the ratio watched : plain of each pair, first at the start, then after it."""
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
    plain, start, steady = [], [], []
    for _ in range(PAIRS):
        plain.append(block(step, steps))
        with tempfile.TemporaryDirectory() as folder:
            run = tv.init(project="bench", mode="offline", dir=folder)
            tv.watch(model, optimizer)
            start.append(block(step, START) / plain[-1])
            steady.append(block(step, steps) / plain[-1])
            run.finish()
    return statistics.median(plain), start, steady


def main() -> None:
    """Print one line a model."""
    torch.set_num_threads(1)
    print(f"{'model':<12} {'step':>9} {'first 30':>9} {'after':>9} {'spread':>18}")
    for name, build in MODELS.items():
        plain, start, steady = measure(build)
        spread = f"{min(steady) - 1:+.1%} … {max(steady) - 1:+.1%}"
        first, after = statistics.median(start) - 1, statistics.median(steady) - 1
        print(f"{name:<12} {plain * 1e3:6.2f} ms {first:+9.1%} {after:+9.1%} {spread:>18}")


if __name__ == "__main__":
    main()
