"""Healthy trainings into which faults are injected. Each is the fixed twin of all faults put into it."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.diagnosis import data, nets
from benchmarks.diagnosis.training import Training


def cross_entropy(model, x, y):
    """Of classes `(n,)`, or of one class a position `(n, length)`."""
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


def binary(model, x, y):
    """Of targets 0.0 and 1.0."""
    return F.binary_cross_entropy_with_logits(model(x), y)


def squared(model, x, y):
    """Mean squared error."""
    return F.mse_loss(model(x), y)


def sgd(model, lr=0.05, momentum=0.9, **more):
    """One SGD over all parameters."""
    return [torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, **more)]


def adam(model, lr=1e-3, **more):
    """One Adam over all parameters."""
    return [torch.optim.Adam(model.parameters(), lr=lr, **more)]


def adamw(model, lr=1e-3, **more):
    """One AdamW over all parameters."""
    return [torch.optim.AdamW(model.parameters(), lr=lr, **more)]


def warm(optimizers, steps):
    """Linear warm-up, then constant."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizers[0], lambda step: min(1.0, (step + 1) / steps)
    )


def mlp_sgd():
    """Digits by a ReLU net under SGD with momentum."""
    model = nets.mlp(64, 10, depth=3)
    return Training(model, sgd(model), data.digits(), cross_entropy)


def mlp_adam():
    """Digits by a wider ReLU net under Adam."""
    model = nets.mlp(64, 10, width=96, depth=3)
    return Training(model, adam(model), data.digits(), cross_entropy, tell=True)


def cnn_adam():
    """Digits by convolutions with batch norm."""
    model = nets.cnn()
    return Training(model, adam(model, 2e-3), data.digits(), cross_entropy, steps=300)


def cnn_sgd():
    """Digits by convolutions without norm."""
    model = nets.cnn(norm=False)
    return Training(model, sgd(model, 0.02), data.digits(), cross_entropy, steps=300)


def transformer():
    """Digits as rows, AdamW with a warm-up and clipping."""
    model = nets.RowTransformer()
    optimizers = adamw(model, 3e-3, weight_decay=0.05)
    schedule = warm(optimizers, 50)
    return Training(
        model, optimizers, data.digits(), cross_entropy, scheduler=schedule, clip=1.0, steps=300
    )


def recurrent():
    """Digits as sequences of rows by a GRU."""
    model = nets.Recurrent()
    return Training(model, adam(model, 3e-3), data.digits(), cross_entropy, steps=300)


def characters():
    """A language model of characters, AdamW with a warm-up."""
    model = nets.CharTransformer(data.VOCABULARY, data.CONTEXT)
    optimizers = adamw(model, 3e-3, weight_decay=0.1)
    return Training(
        model,
        optimizers,
        data.text(),
        cross_entropy,
        scheduler=warm(optimizers, 50),
        clip=1.0,
        steps=300,
    )


def tabular():
    """Tumours by a net with dropout; two classes, one output."""
    model = nets.mlp(30, 1, width=32, dropout=0.2)
    return Training(model, adam(model, 2e-3), data.cancer(), binary)


def wine_tanh():
    """Wines by a tanh net under plain SGD."""
    model = nets.mlp(13, 3, width=32, depth=3, act=nn.Tanh)
    return Training(model, sgd(model, 0.03), data.wine(), cross_entropy, batch=16, validate=25)


def regression():
    """Diabetes by a ReLU net, squared error."""
    model = nets.mlp(10, 1, width=32, depth=2)
    return Training(model, adam(model, 1e-3), data.diabetes(), squared)


def residual():
    """Digits by pre-norm residual blocks whose branches start at zero."""
    model = nets.Residual(64, 10)
    return Training(model, adamw(model), data.digits(), cross_entropy, steps=300)


BASES: dict[str, Callable[[], Training]] = {
    "mlp-sgd": mlp_sgd,
    "mlp-adam": mlp_adam,
    "cnn-adam": cnn_adam,
    "cnn-sgd": cnn_sgd,
    "transformer": transformer,
    "recurrent": recurrent,
    "characters": characters,
    "tabular": tabular,
    "wine-tanh": wine_tanh,
    "regression": regression,
    "residual": residual,
}
