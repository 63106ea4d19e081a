"""Faults of wiring, loss use, call order and data: certain once they are seen."""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.diagnosis import nets
from benchmarks.diagnosis.bases import sgd
from benchmarks.diagnosis.data import Data
from benchmarks.diagnosis.dynamic import STUCK
from benchmarks.diagnosis.faults import Faults

FAULTS = Faults("deterministic")
into = FAULTS.into


def last(t):
    """The last matrix before the head, and its name."""
    return next(
        n for n in ("fc2", "conv2", "blocks.0.up", "rnn") if n in dict(t.model.named_modules())
    )


@into(
    "mlp-sgd",
    "cnn-adam",
    "transformer",
    "tabular",
    roots=("trainable-not-in-optimizer",),
    places=("fc2", "conv2", "blocks.0.up"),
    also=("unchanged-parameter",),
    steps=200,
)
def layer_left_out(t):
    left = {id(p) for p in t.model.get_submodule(last(t)).parameters()}
    kept = [p for p in t.model.parameters() if id(p) not in left]
    t.optimizers, t.scheduler = [type(t.optimizers[0])(kept, lr=t.rate)], None


@into(
    "mlp-adam",
    "recurrent",
    "regression",
    roots=("optimizer-stale-params", "trainable-not-in-optimizer", "unchanged-parameter"),
    also=STUCK,
    places=("head",),
    steps=200,
)
def head_replaced_after_the_optimizer(t):
    head = t.model.head
    t.model.head = nn.Linear(head.in_features, head.out_features)


@into("mlp-sgd", "cnn-adam", "transformer", "recurrent", roots=("grad-not-zeroed",), onset=1)
def never_zeroed(t):
    def update(_, x, y, step):
        loss = t.loss(t.model, x, y)
        loss.backward()
        t.optimizers[0].step()
        return loss

    t.update = update


class Cut(nn.Module):
    """Breaks the graph."""

    def forward(self, x):
        return x.detach()


@into(
    "mlp-sgd",
    "mlp-adam",
    "cnn-adam",
    roots=("unchanged-parameter", "no-gradient-param"),
    places=("fc1", "fc2", "conv1", "conv2", "bn*"),
    steps=200,
)
def detached_halfway(t):
    name = "act2" if hasattr(t.model, "act2") else "relu2"
    holder = t.model
    holder.add_module(name, nn.Sequential(getattr(holder, name), Cut()))


@into(
    "mlp-sgd",
    "cnn-adam",
    "transformer",
    "recurrent",
    roots=("softmax-before-cross-entropy",),
    also=STUCK,
)
def softmax_twice(t):
    t.loss = lambda model, x, y: F.cross_entropy(model(x).softmax(-1), y)


@into("mlp-sgd", "cnn-adam", "wine-tanh", roots=("nll-without-log",), also=("loss-negative",))
def nll_of_probabilities(t):
    t.loss = lambda model, x, y: F.nll_loss(model(x).softmax(-1), y)


@into("tabular", name="sigmoid-twice", roots=("sigmoid-before-bce-logits",), also=STUCK)
def sigmoid_twice(t):
    t.loss = lambda model, x, y: F.binary_cross_entropy_with_logits(model(x).sigmoid(), y)


@into("regression", name="loss-broadcast", roots=("loss-broadcast",), also=STUCK)
def loss_broadcast(t):
    t.loss = lambda model, x, y: F.mse_loss(model(x), y[:, 0])


@into(
    "tabular", name="softmax-of-one", roots=("softmax-single-unit",), also=(*STUCK, "loss-constant")
)
def softmax_of_one(t):
    t.loss = lambda model, x, y: F.binary_cross_entropy(model(x).softmax(-1), y)


@into(
    "tabular",
    name="labels-one-and-two",
    roots=("label-out-of-range",),
    also=("loss-negative", "loss-divergence"),
)
def labels_one_and_two(t):
    t.corrupt = lambda x, y, step: (x, y + 1)


@into("tabular", "residual", "mlp-adam", roots=("train-mode-missing",), onset=50)
def never_back_to_training(t):
    if not any(isinstance(m, nn.Dropout) for m in t.model.modules()):
        t.model.head = nn.Sequential(nn.Dropout(0.2), t.model.head)
        t.optimizers = [type(t.optimizers[0])(t.model.parameters(), lr=t.rate)]
    d = t.data

    def evaluate(_):
        t.model.eval()
        with torch.no_grad():
            return {"val/loss": float(t.loss(t.model, d.x_val, d.y_val))}

    t.evaluate = evaluate


@into("cnn-adam", "tabular", "mlp-adam", roots=("eval-mode-leak",), onset=49)
def evaluated_in_training_mode(t):
    if not any(isinstance(m, nn.Dropout | nn.BatchNorm2d) for m in t.model.modules()):
        t.model.head = nn.Sequential(nn.Dropout(0.2), t.model.head)
        t.optimizers = [type(t.optimizers[0])(t.model.parameters(), lr=t.rate)]
    d = t.data

    def evaluate(_):
        with torch.no_grad():
            return {"val/loss": float(t.loss(t.model, d.x_val, d.y_val))}

    t.evaluate, t.validate = evaluate, 10


def _sorted(t):
    order = t.data.y.flatten().argsort(stable=True)
    t.order = lambda n, generator: order


@into(
    "mlp-sgd",
    "cnn-adam",
    "wine-tanh",
    roots=("unshuffled-data", "single-class-batch"),
    also=("same-order-every-epoch", "epoch-position-correlated"),
)
def sorted_by_class(t):
    _sorted(t)


@into("mlp-sgd", "transformer", "regression", roots=("repeated-batch",), also=("overfitting",))
def same_batch_again(t):
    t.order = lambda n, generator: torch.arange(t.batch)


@into("mlp-sgd", "wine-tanh", "tabular", roots=("same-order-every-epoch",))
def same_order_again(t):
    t.order = lambda n, generator: torch.arange(n)


@into(
    "mlp-sgd",
    "cnn-adam",
    "recurrent",
    roots=("input-constant",),
    also=("input-insensitive", *STUCK),
)
def inputs_are_zero(t):
    t.corrupt = lambda x, y, step: (torch.zeros_like(x), y)


@into(
    "mlp-sgd",
    "cnn-sgd",
    "tabular",
    roots=("input-scale",),
    also=("initial-loss-mismatch", "update-ratio-high", "dead-relu-units"),
)
def inputs_not_scaled(t):
    t.corrupt = lambda x, y, step: (1000 * x + 3000, y)


@into("regression", name="targets-not-scaled", roots=("label-scale",), also=("lr-too-low",))
def targets_not_scaled(t):
    t.corrupt = lambda x, y, step: (x, 20_000 * y + 150_000)


@into(
    "mlp-sgd",
    "cnn-adam",
    "tabular",
    roots=("call-order", "no-gradient-param", "unchanged-parameter"),
    also=STUCK,
)
def zeroed_between(t):
    def update(_, x, y, step):
        loss = t.loss(t.model, x, y)
        loss.backward()
        t.optimizers[0].zero_grad()
        t.optimizers[0].step()
        return loss

    t.update = update


@into("mlp-sgd", "cnn-adam", "transformer", roots=("call-order",))
def clipped_after_the_step(t):
    def update(_, x, y, step):
        loss = t.loss(t.model, x, y)
        t.optimizers[0].zero_grad()
        loss.backward()
        t.optimizers[0].step()
        nn.utils.clip_grad_norm_(t.model.parameters(), 1.0)
        return loss

    t.update = update


@into("mlp-sgd", "regression", "wine-tanh", roots=("weight-init-symmetric",), also=STUCK)
def all_weights_equal(t):
    for parameter in t.model.parameters():
        nn.init.constant_(parameter, 0.02)


@into("mlp-adam", "cnn-adam", "tabular", roots=("train-val-shift",), onset=49)
def validation_not_scaled(t):
    d = t.data
    t.data = Data(d.x, d.y, 5 * d.x_val + 8, d.y_val, d.classes)


@into(
    "mlp-sgd",
    "transformer",
    "cnn-adam",
    roots=("initial-loss-mismatch",),
    also=("update-ratio-high", "gradient-exploding"),
)
def head_starts_too_large(t):
    with torch.no_grad():
        t.model.head.weight.mul_(60.0)


@into(
    "mlp-sgd",
    "wine-tanh",
    "regression",
    roots=("loss-negative",),
    also=("loss-divergence", "update-ratio-high"),
)
def loss_with_the_wrong_sign(t):
    usual = t.loss
    t.loss = lambda model, x, y: -usual(model, x, y)


@into("mlp-sgd", "mlp-adam", roots=("no-nonlinearity",))
def no_activation(t):
    t.model = nets.mlp(64, 10, depth=3, act=nn.Identity)
    t.optimizers = sgd(t.model, 0.02)


@into("mlp-sgd", "cnn-sgd", "transformer", roots=("relu-on-output",), also=STUCK)
def relu_behind_the_head(t):
    t.model.head = nets.named(("out", t.model.head), ("relu", nn.ReLU()))


@into("cnn-adam", name="frozen-bn-updating", roots=("frozen-bn-updating",))
def backbone_frozen_but_not_its_statistics(t):
    for name, parameter in t.model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    t.optimizers = [torch.optim.Adam(t.model.head.parameters(), lr=math.exp(-6))]


# Written down before any of them was trained, on 2026-11-21, after the rules that they are about.


@into("mlp-sgd", "recurrent", "regression", "residual", roots=("train-val-shift",), onset=49)
def validation_scaled_twice(t):
    d = t.data
    t.data = Data(d.x, d.y, d.x_val / 16, d.y_val, d.classes)


@into("mlp-adam", "cnn-sgd", "wine-tanh", roots=("train-val-shift",), onset=49)
def validation_not_centred(t):
    d = t.data
    t.data = Data(d.x, d.y, d.x_val + 3, d.y_val, d.classes)


@into("tabular", "cnn-adam", "residual", roots=("train-mode-missing",))
def trained_in_evaluation_mode(t):
    if not any(isinstance(m, nn.Dropout | nn.BatchNorm2d) for m in t.model.modules()):
        t.model.head = nn.Sequential(nn.Dropout(0.2), t.model.head)
        t.optimizers = [type(t.optimizers[0])(t.model.parameters(), lr=t.rate)]
    t.before.append(lambda step: t.model.eval())


@into("recurrent", "cnn-sgd", "residual", "regression", roots=("same-order-every-epoch",))
def shuffled_from_the_same_seed(t):
    t.order = lambda n, generator: torch.randperm(n, generator=torch.Generator().manual_seed(7))


@into("cnn-adam", "residual", "tabular", roots=("repeated-batch",), also=("overfitting",))
def first_batch_only(t):
    chosen = torch.randperm(len(t.data.x), generator=torch.Generator().manual_seed(7))[: t.batch]
    t.order = lambda n, generator: chosen


@into("mlp-sgd", "residual", "regression", roots=("call-order",))
def scheduler_before_the_step(t):
    t.scheduler = torch.optim.lr_scheduler.ExponentialLR(t.optimizers[0], 0.999)

    def update(_, x, y, step):
        loss = t.loss(t.model, x, y)
        t.optimizers[0].zero_grad()
        loss.backward()
        t.scheduler.step()
        t.optimizers[0].step()
        return loss

    t.update = update
