"""Faults that show as a trend: units that die one by one, schedules that run out, steps that are skipped."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis import data, nets
from benchmarks.diagnosis.bases import adam, cross_entropy, sgd
from benchmarks.diagnosis.dynamic import DYING, RATE, SLOW, STUCK, into, linear
from benchmarks.diagnosis.healthy import healthy
from benchmarks.diagnosis.training import Training

Schedules = torch.optim.lr_scheduler
SPENT = ("plateau", "lr-schedule-mismatch")


@into(
    "mlp-sgd",
    "mlp-adam",
    "regression",
    "tabular",
    "cnn-sgd",
    roots=DYING,
    places=("act1", "relu2"),
    onset=260,
    steps=600,
    interval=2,
)
def units_die_one_by_one(t):
    # One every ten steps from step 200 on: a tenth of 64 is gone after 60 steps. Two thirds in the end.
    fading = linear(t, "conv2" if hasattr(t.model, "conv2") else "fc1").bias

    def fade(step):
        index = (step - 200) // 10
        if step >= 200 and step % 10 == 0 and 3 * index < 2 * len(fading):
            with torch.no_grad():
                fading[index] -= 50.0

    t.before.append(fade)


@into(
    "mlp-sgd",
    "regression",
    "tabular",
    roots=("loss-oscillation", *RATE),
    onset=0,
    steps=800,
    interval=5,
)
def a_valley_too_steep(t):
    # A linear model at a rate just below the one from which on its steps climb the walls; inputs with a mean make one
    # direction much steeper than all others. Epochs of 45 batches, from a loader; few samples in them bear half of it.
    at_the_edge(t, 0.95 if len(t.data.x) > 1000 else 0.4)


def at_the_edge(t: Training, share: float) -> None:
    """Least squares by a linear model at a share of the largest rate that is stable."""
    d, momentum = t.data, 0.9
    classes = d.classes if d.y.dim() == 1 else 1
    x = d.x + 2.0
    curvature = 2 / classes * float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1])
    t.model = nn.Linear(x.shape[1], classes)
    t.optimizers = sgd(t.model, share * 2 * (1 + momentum) / curvature, momentum)

    def squares(model, x, y):
        target = F.one_hot(y, classes).float() if y.dim() == 1 else y
        return F.mse_loss(model(x + 2.0), target)

    loader = DataLoader(TensorDataset(d.x, d.y), len(x) // 45, shuffle=True)
    batches = (batch for _ in range(t.steps) for batch in loader)
    t.loss = squares
    t.update = lambda t, x, y, step: t.step(*next(batches))


def schedule(t: Training, make) -> None:
    """Schedule a training anew, from its full rate on."""
    for group in t.groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    t.scheduler = make(t.optimizers[0])


@into(
    "mlp-sgd",
    "cnn-sgd",
    "residual",
    "recurrent",
    "wine-tanh",
    "mlp-adam",
    roots=SPENT,
    also=(*STUCK, *SLOW),
    onset=50,
    steps=800,
)
def milestones_counted_in_batches(t):
    schedule(t, lambda optimizer: Schedules.MultiStepLR(optimizer, [20, 40, 60, 80]))


@into(
    "mlp-sgd",
    "mlp-adam",
    "cnn-adam",
    "transformer",
    "tabular",
    roots=SPENT,
    also=(*STUCK, *SLOW),
    onset=90,
    steps=800,
)
def decay_at_every_batch(t):
    schedule(t, lambda optimizer: Schedules.ExponentialLR(optimizer, 0.95))


def in_float16(t: Training, **scaler) -> torch.amp.GradScaler:
    """Train under float16 autocast with a gradient scaler."""
    chosen, usual = torch.amp.GradScaler("cpu", **scaler), t.loss

    def loss(model, x, y):
        with torch.autocast("cpu", torch.float16):
            return usual(model, x, y)

    def update(t, x, y, step):
        value = t.loss(t.model, x, y)
        (optimizer,) = t.optimizers
        optimizer.zero_grad()
        chosen.scale(value).backward()
        chosen.step(optimizer)
        chosen.update()
        return value

    t.loss, t.update = loss, update
    return chosen


@into("mlp-adam", "cnn-adam", "residual", roots=("amp-skip-storm",), also=STUCK, onset=0)
def loss_beyond_float16(t):
    in_float16(t)
    usual = t.loss
    t.loss = lambda model, x, y: usual(model, x, y) * 1e9


@into("mlp-adam", "cnn-adam", "mlp-sgd", "residual", roots=("amp-skip-storm",), onset=0)
def a_root_of_zero_now_and_then(t):
    in_float16(t)
    usual, now = t.loss, {"step": 0}
    t.before.append(lambda step: now.update(step=step))

    def loss(model, x, y):
        value = usual(model, x, y)
        first = next(model.parameters())
        return value + torch.sqrt(0 * first.sum()) if now["step"] % 8 == 7 else value

    t.loss = loss


@healthy
def float16_with_a_scaler():
    model = nets.mlp(64, 10, width=96)
    training = Training(model, adam(model), data.digits(), cross_entropy)
    in_float16(training)
    return training


@healthy
def float16_with_a_scaler_that_grows_often():
    model = nets.cnn(norm=False)
    training = Training(model, sgd(model, 0.02), data.digits(), cross_entropy, steps=300)
    in_float16(training, init_scale=2.0**24, growth_interval=50)
    return training


@healthy
def decays_to_a_thousandth_near_its_end():
    model = nets.mlp(64, 10)
    optimizers = sgd(model, 0.05)
    schedule = Schedules.MultiStepLR(optimizers[0], [350, 430, 470])
    return Training(model, optimizers, data.digits(), cross_entropy, scheduler=schedule, steps=500)


@healthy
def least_squares_with_a_steep_direction():
    model = nets.mlp(64, 10)
    training = Training(model, [], data.digits(), cross_entropy, steps=600)
    at_the_edge(training, 0.05)
    return training


@healthy
def stays_where_it_ends():
    # Few classes, label smoothing: the loss is at its floor after a third of the steps, and stays there.
    model = nets.mlp(13, 3, width=32)

    def smoothed(model, x, y):
        return F.cross_entropy(model(x), y, label_smoothing=0.1)

    return Training(model, adam(model, 5e-3), data.wine(), smoothed, batch=64, steps=900)


@healthy
def units_that_specialise():
    # Sparse from the start and ever after: every unit has samples of its own.
    model = nets.mlp(64, 10, width=128, depth=1)
    nn.init.constant_(model.fc1.bias, -0.5)
    return Training(model, adam(model, 1e-3), data.digits(), cross_entropy, steps=900)
