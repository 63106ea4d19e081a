"""Faults of what feeds a training and of what its loss rewards, with healthy trainings that look like them."""

from time import sleep

import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.diagnosis import data, nets
from benchmarks.diagnosis.bases import adam, cross_entropy, sgd
from benchmarks.diagnosis.dynamic import STUCK
from benchmarks.diagnosis.healthy import healthy
from benchmarks.diagnosis.training import Training
from benchmarks.diagnosis.wiring import into


class Slow(Dataset):
    """Samples that take a while to decode."""

    def __init__(self, found: data.Data, seconds: float) -> None:
        self.found, self.seconds = found, seconds

    def __len__(self):
        return len(self.found.x)

    def __getitem__(self, index):
        sleep(self.seconds)
        return self.found.x[index], self.found.y[index]


def feed(t, dataset):
    """Batches of a DataLoader, pass after pass, in place of those that the loop draws."""

    def passes():
        while True:
            yield from DataLoader(dataset, batch_size=t.batch, shuffle=True, drop_last=True)

    batches = passes()
    t.corrupt = lambda x, y, step: tuple(next(batches))


@into(
    "mlp-sgd",
    "cnn-adam",
    "tabular",
    roots=("input-bound",),
    also=("loader-workers-zero",),
    onset=20,
    steps=240,
)
def samples_decoded_between_the_steps(t):
    feed(t, Slow(t.data, 0.02 / t.batch))


@into("mlp-sgd", "cnn-sgd", "tabular", roots=("prediction-collapse",), onset=100, also=STUCK)
def one_class_outweighs_all(t):
    if t.data.classes == 2:
        weight = torch.tensor(1e4)
        t.loss = lambda model, x, y: F.binary_cross_entropy_with_logits(
            model(x), y, pos_weight=weight
        )
        return
    weights = torch.ones(t.data.classes)
    weights[3] = 1e3
    weights /= weights.mean()
    t.loss = lambda m, x, y: (weights[y] * F.cross_entropy(m(x), y, reduction="none")).mean()


@healthy
def loader_of_tensors_in_memory():
    model = nets.mlp(64, 10)
    training = Training(model, sgd(model, 0.05), data.digits(), cross_entropy, steps=600)
    feed(training, TensorDataset(training.data.x, training.data.y))
    return training


@healthy
def class_weights_by_frequency():
    model = nets.mlp(64, 10)
    found = data.digits()
    kept = (found.y != 3) | (torch.arange(len(found.y)) % 8 == 0)
    part = data.Data(found.x[kept], found.y[kept], found.x_val, found.y_val, 10)
    weights = len(part.y) / (10 * torch.bincount(part.y).float())
    return Training(
        model, adam(model), part, lambda m, x, y: F.cross_entropy(m(x), y, weight=weights)
    )
