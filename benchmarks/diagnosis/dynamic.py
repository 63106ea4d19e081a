"""Faults of scales, rates, saturation, dead units, plateaus and generalisation."""

import torch
from torch import nn

from benchmarks.diagnosis import nets
from benchmarks.diagnosis.bases import adam, cross_entropy, sgd, squared
from benchmarks.diagnosis.data import Data
from benchmarks.diagnosis.faults import Faults
from benchmarks.diagnosis.training import Training

FAULTS = Faults("dynamic")
into = FAULTS.into

RATE = ("update-ratio-high", "lr-too-high")
SLOW = ("update-ratio-low", "lr-too-low")
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


@into("mlp-adam", "regression", "mlp-sgd", roots=("dead-relu-units",), places=("act1",), onset=120)
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
    roots=("dead-relu-units",),
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
    roots=("gradient-exploding", "loss-spike"),
    onset=200,
)
def broken_batches(t):
    t.corrupt = lambda x, y, step: (x * 3e2, y) if 200 <= step < 206 else (x, y)


@into("mlp-sgd", "regression", "tabular", roots=("loss-spike", "gradient-exploding"), onset=100)
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


@into("mlp-sgd", "tabular", "cnn-adam", roots=("val-constant",), onset=50)
def stale_copy_is_evaluated(t):
    import copy

    stale = copy.deepcopy(t.model).eval()
    d = t.data
    t.validate = 25

    def evaluate(_):
        with torch.no_grad():
            return {"val/loss": float(t.loss(stale, d.x_val, d.y_val))}

    t.evaluate = evaluate


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
