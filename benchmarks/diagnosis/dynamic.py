"""Faults of scales, rates, saturation, dead units, plateaus and generalisation."""

import torch
from torch import nn

from benchmarks.diagnosis import nets
from benchmarks.diagnosis.bases import adam, cross_entropy, sgd, squared
from benchmarks.diagnosis.faults import Faults
from benchmarks.diagnosis.training import Training

FAULTS = Faults("dynamic")
into = FAULTS.into

RATE = ("update-ratio-high", "lr-too-high", "lr-out-of-family-range")
SLOW = ("update-ratio-low", "lr-too-low", "lr-out-of-family-range")
DYING = ("dead-relu-units", "dead-units-growing")
STUCK = ("loss-stuck-at-prior", "loss-not-decreasing")


def times_rate(training: Training, factor: float) -> None:
    """Multiply every learning rate, under a schedule too."""
    for group in training.groups:
        group["lr"] *= factor
    if training.scheduler is not None:
        training.scheduler.base_lrs = [rate * factor for rate in training.scheduler.base_lrs]


def at(training: Training, when: int, change) -> None:
    """Do something once, before step `when`."""
    training.before.append(lambda step: change() if step == when else None)


def linear(training: Training, name: str) -> nn.Module:
    """A layer by its name."""
    return training.model.get_submodule(name)


@into(
    "mlp-sgd",
    "mlp-adam",
    "cnn-adam",
    "transformer",
    "recurrent",
    "characters",
    "cnn-sgd",
    "residual",
    "wine-tanh",
    "tabular",
    roots=RATE,
)
def rate_times_100(t):
    times_rate(t, 100)


@into("mlp-sgd", "cnn-sgd", "tabular", "wine-tanh", "residual", roots=RATE, steps=300)
def rate_times_1000(t):
    times_rate(t, 1000)


@into(
    "mlp-sgd",
    "cnn-adam",
    "recurrent",
    "tabular",
    "transformer",
    "residual",
    "cnn-sgd",
    "mlp-adam",
    roots=RATE,
    onset=150,
)
def rate_jumps(t):
    at(t, 150, lambda: times_rate(t, 300))


@into(
    "mlp-sgd",
    "cnn-adam",
    "transformer",
    "regression",
    "mlp-adam",
    "recurrent",
    "characters",
    "residual",
    roots=SLOW,
    also=STUCK,
    steps=800,
)
def rate_over_100000(t):
    times_rate(t, 1e-5)


def deep(t: Training, act: type[nn.Module], depth: int, optimizer=sgd, lr: float = 0.05) -> None:
    """Replace the model by a deep plain stack."""
    inputs, outputs = t.data.x.shape[1], 1 if t.data.y.dim() == 2 else t.data.classes
    t.model = nets.mlp(inputs, outputs, width=48, depth=depth, act=act)
    t.optimizers = optimizer(t.model, lr)


@into(
    "mlp-sgd",
    "wine-tanh",
    "regression",
    "cnn-sgd",
    roots=("gradient-vanishing-depth",),
    also=("deep-sigmoid-stack",),
    places=("fc1", "fc2", "fc3"),
)
def deep_sigmoid(t):
    deep(t, nn.Sigmoid, 9)


@into(
    "mlp-adam",
    "tabular",
    roots=("gradient-vanishing-depth",),
    also=("deep-sigmoid-stack",),
    places=("fc1", "fc2", "fc3"),
)
def deep_sigmoid_adam(t):
    deep(t, nn.Sigmoid, 10, adam, 1e-3)


def rescale(t: Training, factor: float) -> None:
    """Start with weights that are too large or too small."""
    with torch.no_grad():
        for parameter in t.model.parameters():
            if parameter.dim() > 1:
                parameter *= factor


SCALE = ("activation-scale-depth", "weight-init-scale", "preflight-init-scale")


@into(
    "mlp-sgd",
    "wine-tanh",
    "regression",
    "mlp-adam",
    "tabular",
    "cnn-adam",
    roots=(*SCALE, "gradient-vanishing-depth", "input-insensitive"),
    also=STUCK,
)
def weights_too_small(t):
    deep(t, nn.ReLU, 8)
    rescale(t, 0.25)


@into("mlp-adam", "tabular", "mlp-sgd", roots=(*SCALE, "initial-loss-mismatch"), also=RATE)
def weights_too_large(t):
    deep(t, nn.ReLU, 8, adam, 1e-4)
    rescale(t, 10.0)


@into(
    "wine-tanh",
    "mlp-sgd",
    "tabular",
    "mlp-adam",
    "regression",
    "cnn-adam",
    roots=("saturated-activation", *SCALE),
    places=("act*",),
)
def tanh_saturated(t):
    deep(t, nn.Tanh, 3, lr=0.01)
    for name in (
        "fc1",
        "fc2",
        "fc3",
    ):  # weights alone would saturate both ends in turn, which is no fault
        nn.init.normal_(linear(t, name).bias, 0, 20.0)


@into("mlp-sgd", "mlp-adam", "residual", roots=("dead-relu-units",), places=("act2", "*.1.act"))
def dead_from_the_start(t):
    layer = t.model.branches[1].up if hasattr(t.model, "branches") else linear(t, "fc2")
    nn.init.constant_(layer.bias, -50.0)


@into("mlp-adam", "regression", "mlp-sgd", roots=DYING, places=("act1",), onset=120)
def dead_later(t):
    def kill():
        with torch.no_grad():
            linear(t, "fc1").bias.fill_(-100.0)

    at(t, 120, kill)


@into("mlp-adam", "mlp-sgd", "cnn-sgd", roots=("dead-relu-units",), places=("*1", "*2", "*3"))
def half_dead(t):
    layer = linear(t, "conv2" if hasattr(t.model, "conv2") else "fc2")
    with torch.no_grad():
        layer.bias[: int(0.7 * len(layer.bias))] = -50.0


@into(
    "mlp-adam",
    "mlp-sgd",
    "tabular",
    roots=DYING,
    places=("act*",),
    onset=150,
    steps=800,
)
def penalty_switched_on(t):
    usual, now = t.loss, {"step": 0}
    t.before.append(lambda step: now.update(step=step))

    def loss(model, x, y):
        value = usual(model, x, y)
        return value + 100.0 * model.act1(model.fc1(x)).mean() if now["step"] >= 150 else value

    t.loss = loss


@into(
    "mlp-sgd",
    "cnn-sgd",
    "wine-tanh",
    "residual",
    "mlp-adam",
    "recurrent",
    roots=("gradient-exploding", "loss-spike", "input-scale"),
    onset=200,
)
def broken_batches(t):
    t.corrupt = lambda x, y, step: (x * 3e2, y) if 200 <= step < 206 else (x, y)


@into(
    "mlp-sgd",
    "regression",
    "tabular",
    roots=("loss-spike", "gradient-exploding", "input-scale"),
    onset=100,
)
def spikes_return(t):
    t.corrupt = lambda x, y, step: (x * 50, y) if step >= 100 and step % 20 == 0 else (x, y)


@into(
    "mlp-sgd",
    "cnn-sgd",
    "recurrent",
    "residual",
    "regression",
    "wine-tanh",
    roots=("gradient-exploding", *RATE),
    onset=150,
)
def loss_weight_jumps(t):
    usual, now = t.loss, {"step": 0}
    t.before.append(lambda step: now.update(step=step))
    t.loss = lambda model, x, y: usual(model, x, y) * (1e4 if now["step"] >= 150 else 1.0)


@into(
    "mlp-sgd",
    "mlp-adam",
    "wine-tanh",
    roots=("activation-drift", "weight-norm-growth"),
    places=("fc2", "act2", "fc3", "act3", "head"),
    onset=100,
)
def a_layer_grows(t):
    def grow(step):
        if step >= 100:
            with torch.no_grad():
                linear(t, "fc2").weight.mul_(1.05)

    t.before.append(grow)


@into(
    "mlp-sgd",
    "wine-tanh",
    "regression",
    roots=("input-insensitive", "saturated-activation"),
    also=STUCK,
    places=("fc*", "act*"),
)
def data_lost_behind_a_bias(t):
    deep(t, nn.Sigmoid, 3, lr=0.01)
    nn.init.constant_(linear(t, "fc2").bias, 40.0)


@into(
    "mlp-adam",
    "residual",
    "mlp-sgd",
    "cnn-adam",
    "recurrent",
    "transformer",
    "wine-tanh",
    "tabular",
    roots=(*RATE,),
    also=("gradient-exploding",),
    onset=150,
)
def updates_times_50(t):
    # A second optimizer of the same parameters, with a rate of its own, comes in.
    late = torch.optim.SGD(t.model.parameters(), lr=8.0)
    usual = t.step

    def update(_, x, y, step):
        loss = usual(x, y)
        if step >= 150:
            late.step()
        return loss

    t.update = update


@into(
    "mlp-sgd",
    "regression",
    "transformer",
    "mlp-adam",
    "wine-tanh",
    "tabular",
    roots=("gradient-exploding-depth", *SCALE),
    also=RATE,
)
def gradients_grow_with_depth(t):
    t.clip = 1.0
    if t.data.y.dim() == 1:
        t.loss = cross_entropy
    else:
        t.loss = squared
    inputs, outputs = t.data.x.shape[1], 1 if t.data.y.dim() == 2 else t.data.classes
    t.model = nets.mlp(inputs, outputs, width=48, depth=10, act=nn.LeakyReLU)
    rescale(t, 10.0)
    t.optimizers, t.scheduler = sgd(t.model, 1e-3), None
