"""Passes over a DataLoader of many small batches: in a fixed order, and healthy ones that look like it."""

from itertools import count

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from benchmarks.diagnosis import data, nets
from benchmarks.diagnosis.bases import adam, cross_entropy, sgd
from benchmarks.diagnosis.healthy import healthy
from benchmarks.diagnosis.training import Training
from benchmarks.diagnosis.wiring import into

STEPS = 900
"""Five passes over the digits in batches of 8."""


class Noisy(Dataset):
    """Samples augmented with noise: every batch is one of its own, and no checksum comes back."""

    def __init__(self, found):
        self.found = found

    def __len__(self):
        return len(self.found.x)

    def __getitem__(self, index):
        x = self.found.x[index]
        return x + 0.1 * torch.randn_like(x), self.found.y[index]


def feed(t, batch=8, drop_last=True, **order):
    """Batches of a DataLoader in place of those that the loop draws; SGD's rate goes with their size."""
    for optimizer in t.optimizers:
        for group in optimizer.param_groups:
            group["lr"] *= batch / t.batch if isinstance(optimizer, torch.optim.SGD) else 1.0
    t.batch, t.steps = batch, STEPS

    def passes():
        while True:
            yield from DataLoader(Noisy(t.data), batch_size=batch, drop_last=drop_last, **order)

    batches = passes()
    t.corrupt = lambda x, y, step: tuple(next(batches))


@into(
    "mlp-sgd",
    "cnn-adam",
    "recurrent",
    "residual",
    roots=("epoch-position-correlated",),
    also=("same-order-every-epoch",),
    onset=None,
)
def augmented_in_a_fixed_order(t):
    feed(t, shuffle=False)


@into(
    "mlp-adam",
    "cnn-sgd",
    "transformer",
    "tabular",
    roots=("epoch-position-correlated",),
    also=("same-order-every-epoch",),
    onset=None,
)
def augmented_and_seeded_anew(t):
    class Again(torch.utils.data.Sampler):
        def __len__(self):
            return len(t.data.x)

        def __iter__(self):
            again = torch.Generator().manual_seed(7)
            return iter(torch.randperm(len(self), generator=again).tolist())

    feed(t, batch=4 if t.data.classes == 2 else 8, sampler=Again())


def shuffled(model, optimizers, loss=cross_entropy, **more):
    """Digits in 180 batches a pass."""
    training = Training(model, optimizers, data.digits(), loss, **more)
    feed(training, shuffle=True, drop_last=False)
    return training


@healthy
def small_shuffled_batches():
    model = nets.mlp(64, 10)
    return shuffled(model, sgd(model, 0.04))


@healthy
def small_shuffled_batches_of_a_cnn():
    model = nets.cnn(norm=False)
    return shuffled(model, adam(model, 5e-4))


@healthy
def rate_restarts_with_every_pass():
    model = nets.mlp(64, 10)
    optimizers = adam(model, 2e-3)
    restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizers[0], 180)
    return shuffled(model, optimizers, scheduler=restarts)


@healthy
def short_cycles_of_the_rate():
    model = nets.mlp(64, 10)
    optimizers = sgd(model, 0.02)
    cycles = torch.optim.lr_scheduler.CyclicLR(optimizers[0], 1e-3, 0.02, step_size_up=5)
    return shuffled(model, optimizers, scheduler=cycles)


@healthy
def loss_averaged_over_the_pass():
    total, place = torch.zeros(()), count()

    def update(t, x, y, step):
        loss = t.step(x, y).detach()
        at = next(place) % 180
        total.mul_(at > 0).add_(loss)
        return total / (at + 1)

    model = nets.mlp(64, 10)
    return shuffled(model, adam(model), update=update)


@healthy
def two_tasks_in_turn():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nets.mlp(64, 32)
            self.heads = nn.ModuleList([nn.Linear(32, 10), nn.Linear(32, 2)])

        def forward(self, x, task):
            return self.heads[task](self.trunk(x).relu())

    model, turn = Two(), count()

    def loss(model, x, y):
        task = next(turn) % 2
        return F.cross_entropy(model(x, task), y % 2 if task else y)

    return shuffled(model, adam(model), loss, validate=0)


@healthy
def classes_drawn_evenly():
    model = nets.mlp(64, 10)
    training = Training(model, adam(model), data.digits(), cross_entropy)
    weights = 1 / torch.bincount(training.data.y).float()[training.data.y]
    feed(training, sampler=WeightedRandomSampler(weights, len(weights)))
    return training
