"""The demo's four trainings on scikit-learn's digits, each an ordinary script with a few lines of trainvitals.

Run as `python -m trainvitals.app.demo.trainings NAME`: each is a process of its own, like a user's, and the only
part of `app` that loads torch. The server address comes from `TRAINVITALS_URL`.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name every torch user knows
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset

import trainvitals.hooks as tv
from trainvitals.app.demo.scenarios import SCENARIOS

BATCH = 64
EVALUATE_EVERY = 50


def main(name: str, steps: int, pause_s: float) -> None:
    """Train the scenario `name` for `steps` steps, at least `pause_s` seconds each so that a person can follow."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, validation = digits()
    model, optimizer, penalty = _BUILDERS[name]()
    config = {"steps": steps, "batch": BATCH, "lr": optimizer.param_groups[0]["lr"]}
    with tv.init(project="demo", name=SCENARIOS[name].title, config=config):
        tv.watch(model, optimizer, interval=3)  # dense, for a short show; the default keeps to 1 %
        for step, (x, y) in zip(range(steps), endless(train), strict=False):
            if name == "blow-up" and step == steps // 4:
                for group in optimizer.param_groups:
                    group["lr"] *= 20  # one zero too many, and doubled for good measure
            logits = model(x)
            loss: Tensor = F.cross_entropy(logits, y) + penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            tv.batch(x, y)
            tv.log({"train/loss": loss, "train/accuracy": accuracy(logits, y)})
            if step % EVALUATE_EVERY == EVALUATE_EVERY - 1:
                tv.log(evaluate(model, validation))
            time.sleep(pause_s)


def digits() -> tuple[TensorDataset, tuple[Tensor, Tensor]]:
    """Training set and validation batch: images `(n, 1, 8, 8)` standardised, labels 0 to 9."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(bunch.target)
    order = torch.tensor(np.random.default_rng(0).permutation(len(labels)))
    images, labels = (images[order] - images.mean()) / images.std(), labels[order]
    return TensorDataset(images[:1500], labels[:1500]), (images[1500:], labels[1500:])


def endless(dataset: TensorDataset) -> Iterator[list[Tensor]]:
    """Shuffled batches, epoch after epoch."""
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        yield from loader


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).float().mean()


@torch.no_grad()
def evaluate(model: nn.Module, validation: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    model.eval()
    logits = model(validation[0])
    model.train()
    return {
        "val/loss": F.cross_entropy(logits, validation[1]),
        "val/accuracy": accuracy(logits, validation[1]),
    }


class Penalty:
    """Nothing, or a weight on the size of one layer's activations that grows after `delay` steps."""

    def __init__(self, layer: nn.Module | None = None, growth: float = 0.0, delay: int = 0) -> None:
        self.growth = growth
        self.weight = -growth * delay
        self.activation: Tensor | None = None
        if layer is not None:
            layer.register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        self.activation = output

    def __call__(self) -> Tensor | float:
        if self.activation is None:
            return 0.0
        self.weight += self.growth
        return self.weight * self.activation.sum(1).mean()


Setup = tuple[nn.Module, Optimizer, Penalty]


def cnn() -> nn.Sequential:
    """A small convolutional net that reaches 97 % in a minute."""
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(1, 16, 3, padding=1),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(16, 32, 3, padding=1),
        "relu2": nn.ReLU(),
        "pool": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(512, 64),
        "relu3": nn.ReLU(),
        "head": nn.Linear(64, 10),
    }
    return _named(layers)


def healthy() -> Setup:
    model = cnn()
    return model, SGD(model.parameters(), lr=0.05, momentum=0.9), Penalty()


def blow_up() -> Setup:
    """The healthy net and optimizer, until the learning rate jumps (see `main`)."""
    return healthy()


def vanishing() -> Setup:
    """Ten sigmoid layers: each passes on at most a quarter of the gradient."""
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for index in range(1, 11):
        layers[f"fc{index}"] = nn.Linear(64, 64)
        layers[f"sigmoid{index}"] = nn.Sigmoid()
    layers["head"] = nn.Linear(64, 10)
    model = _named(layers)
    return model, SGD(model.parameters(), lr=0.1), Penalty()


def dying() -> Setup:
    """A sparsity penalty on one layer that grows without end: it pushes unit after unit below zero for good."""
    layers: dict[str, nn.Module] = {
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(64, 128),
        "relu1": nn.ReLU(),
        "fc2": nn.Linear(128, 128),
        "relu2": nn.ReLU(),
        "fc3": nn.Linear(128, 64),
        "relu3": nn.ReLU(),
        "head": nn.Linear(64, 10),
    }
    model = _named(layers)
    return (
        model,
        Adam(model.parameters(), lr=1e-3),
        Penalty(model.get_submodule("relu2"), growth=5e-4),
    )


def _named(layers: dict[str, nn.Module]) -> nn.Sequential:
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


_BUILDERS = {"healthy": healthy, "blow-up": blow_up, "vanishing": vanishing, "dying": dying}

if __name__ == "__main__":
    main(sys.argv[1], steps=int(sys.argv[2]), pause_s=float(sys.argv[3]))
