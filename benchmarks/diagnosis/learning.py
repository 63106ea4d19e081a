"""Faults of plateaus, precision, regularisation and generalisation."""

import copy

import torch
from torch import nn

from benchmarks.diagnosis.data import Data
from benchmarks.diagnosis.dynamic import RATE, SLOW, STUCK, into, times_rate
from benchmarks.diagnosis.training import Training


def few(t: Training, count: int) -> None:
    """Leave so few samples that the model learns them by heart."""
    d = t.data
    t.data = Data(d.x[:count], d.y[:count], d.x_val, d.y_val, d.classes)


@into(
    "mlp-adam", "regression", "characters", "tabular", roots=("overfitting",), onset=None, steps=900
)
def too_few_samples(t):
    few(t, 48 if t.data.classes != 64 else 24)
    t.validate, t.batch = 15, 16
    if t.data.classes == 2:
        times_rate(t, 3)
        for module in t.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


@into("mlp-adam", "wine-tanh", "cnn-adam", roots=("overfitting",), onset=None, steps=900)
def labels_partly_wrong(t):
    few(t, 128)
    d, share = t.data, 0.5
    wrong = torch.rand(len(d.y), generator=torch.Generator().manual_seed(3)) < share
    y = torch.where(wrong, torch.randint(0, d.classes, d.y.shape), d.y)
    t.data, t.validate = Data(d.x, y, d.x_val, d.y_val, d.classes), 15


@into(
    "mlp-sgd",
    "cnn-adam",
    "transformer",
    "tabular",
    "residual",
    "recurrent",
    "wine-tanh",
    roots=(*STUCK, "labels-carry-no-signal"),
    steps=800,
)
def labels_shuffled(t):
    t.corrupt = lambda x, y, step: (x, y[torch.randperm(len(y))])


@into(
    "mlp-sgd",
    "transformer",
    "residual",
    "mlp-adam",
    "wine-tanh",
    roots=("low-precision-update-lost",),
)
def weights_in_bfloat16(t):
    t.model.to(torch.bfloat16)
    d = t.data
    t.data = Data(d.x.bfloat16(), d.y, d.x_val.bfloat16(), d.y_val, d.classes)
    rate = 3e-4 if isinstance(t.optimizers[0], torch.optim.SGD) else 1e-5
    t.optimizers, t.scheduler = type(t.optimizers[0])(t.model.parameters(), lr=rate), None
    t.optimizers = [t.optimizers]


@into(
    "mlp-adam",
    "cnn-adam",
    "regression",
    roots=("adam-eps-dominates",),
    also=(*SLOW, *STUCK),
    steps=600,
)
def loss_far_too_small(t):
    usual = t.loss
    t.loss = lambda model, x, y: usual(model, x, y) * 1e-8


@into("mlp-sgd", "mlp-adam", "transformer", roots=("over-regularised",), also=STUCK, steps=600)
def decay_far_too_strong(t):
    kind = (
        torch.optim.AdamW if not isinstance(t.optimizers[0], torch.optim.SGD) else torch.optim.SGD
    )
    t.optimizers = [
        kind(t.model.parameters(), lr=t.rate, weight_decay=0.3 if kind is torch.optim.SGD else 20.0)
    ]
    t.scheduler = None


@into(
    "mlp-sgd",
    "cnn-adam",
    "recurrent",
    "residual",
    "tabular",
    roots=("lr-schedule-mismatch",),
    onset=60,
    also=("plateau", *SLOW),
    steps=800,
)
def schedule_per_batch(t):
    # Made for 60 epochs, stepped at every batch.
    t.scheduler = torch.optim.lr_scheduler.LambdaLR(
        t.optimizers[0], lambda step: max(0.0, 1 - step / 60)
    )


@into(
    "mlp-sgd",
    "cnn-adam",
    "regression",
    "transformer",
    "residual",
    roots=("loss-divergence",),
    also=RATE,
)
def gradient_ascent(t):
    for group in t.groups:
        group["maximize"] = True


@into("mlp-sgd", "tabular", "cnn-adam", roots=("val-constant",), onset=50)
def stale_copy_is_evaluated(t):
    stale = copy.deepcopy(t.model).eval()
    d = t.data
    t.validate = 25

    def evaluate(_):
        with torch.no_grad():
            return {"val/loss": float(t.loss(stale, d.x_val, d.y_val))}

    t.evaluate = evaluate
