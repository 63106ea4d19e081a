"""Faults that make NaN or infinity: the module, the direction and the step are known."""

import math

import torch
from torch import Tensor, nn

from benchmarks.diagnosis.faults import Faults
from benchmarks.diagnosis.training import Training

FAULTS = Faults("nan")
into = FAULTS.into


class Spoilt(nn.Module):
    """A layer whose output is spoilt by `how` from its call number `when` of training on."""

    def __init__(self, layer: nn.Module, when: int, how) -> None:
        super().__init__()
        self.inner, self.when, self.how, self.calls = layer, when, how, 0

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        if not self.training:
            return out
        self.calls += 1
        return self.how(out) if self.calls > self.when else out


def spoil(t: Training, name: str, when: int, how) -> None:
    """Put a spoilt layer in the place of layer `name`."""
    parent, _, last = name.rpartition(".")
    holder = t.model.get_submodule(parent)
    holder.add_module(last, Spoilt(getattr(holder, last), when, how))


def _activation(t: Training) -> str:
    names = [name for name, _ in t.model.named_modules()]
    return next(name for name in ("act2", "relu2", "norm") if name in names)


@into(
    "mlp-sgd",
    "cnn-adam",
    "transformer",
    roots=("nonfinite-activation",),
    places=("act2", "relu2", "norm"),
    onset=137,
    direction="forward",
    steps=250,
)
def division_by_zero(t):
    spoil(
        t,
        _activation(t),
        137,
        lambda out: out * (out.sum() * 0.0 + 1.0) / (out.sum().detach() * 0.0),
    )


@into(
    "mlp-adam",
    "tabular",
    "wine-tanh",
    roots=("nonfinite-activation",),
    places=("act1",),
    onset=93,
    direction="forward",
    steps=250,
)
def log_of_zero(t):
    spoil(t, "act1", 93, lambda out: torch.log(out.clamp(min=0) * 0.0))


@into(
    "mlp-sgd",
    "cnn-sgd",
    "recurrent",
    "regression",
    roots=("nonfinite-activation", "nonfinite-input"),
    onset=171,
    direction="input",
    steps=250,
)
def nan_in_the_data(t):
    def corrupt(x, y, step):
        if step == 171:
            x = x.clone()
            x[2, 3] = math.nan
        return x, y

    t.corrupt = corrupt


@into(
    "mlp-sgd",
    "transformer",
    "regression",
    roots=("nonfinite-loss",),
    onset=88,
    direction="loss",
    steps=250,
)
def loss_of_nothing(t):
    usual, now = t.loss, {"step": 0}
    t.before.append(lambda step: now.update(step=step))

    def loss(model, x, y):
        value = usual(model, x, y)
        return value + value.new_zeros(0).mean() if now["step"] == 88 else value

    t.loss = loss


@into(
    "mlp-sgd",
    "mlp-adam",
    "regression",
    roots=("nonfinite-gradient",),
    places=("fc1",),
    onset=64,
    direction="backward",
    steps=250,
)
def root_of_zero(t):
    # The value of sqrt at 0 is finite, its derivative is not.
    spoil(t, "act1", 64, lambda out: out + torch.sqrt(out * 0.0))
    t.model.act1.add_module("inner", nn.ReLU())


@into(
    "mlp-sgd",
    "cnn-sgd",
    "wine-tanh",
    roots=("nonfinite-activation", "nonfinite-gradient", "nonfinite-parameter"),
    places=("head",),
    onset=110,
    direction="parameter|update",
    steps=250,
)
def weight_overwritten(t):
    def overwrite(step):
        if step == 110:
            with torch.no_grad():
                t.model.head.weight[0, 0] = math.inf

    t.before.append(overwrite)


@into(
    "mlp-adam",
    "cnn-adam",
    "characters",
    roots=("nonfinite-gradient",),
    onset=75,
    direction="backward",
    steps=250,
)
def infinite_gradient(t):
    usual = t.step

    def update(_, x, y, step):
        if step == 75:
            handle = next(t.model.parameters()).register_hook(lambda g: g * math.inf)
            loss = usual(x, y)
            handle.remove()
            return loss
        return usual(x, y)

    t.update = update
