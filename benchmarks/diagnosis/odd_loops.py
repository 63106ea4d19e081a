"""Healthy trainings whose loop is not the usual one: several optimizers, closures, adapters, games."""

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.diagnosis import data, nets
from benchmarks.diagnosis.bases import adam, adamw, cross_entropy, sgd
from benchmarks.diagnosis.healthy import healthy
from benchmarks.diagnosis.training import Training


def _digits(model, optimizers, **more) -> Training:
    return Training(model, optimizers, data.digits(), cross_entropy, **more)


def pretrained(depth: int = 3) -> nn.Sequential:
    """A net that knows the digits 0 to 4, with a new head for all."""
    found = data.digits()
    model = nets.mlp(64, 10, depth=depth)
    known = found.y < 5
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(found.x[known]), found.y[known]).backward()
        optimizer.step()
    optimizer.zero_grad()
    model.head = nn.Linear(64, 10)
    return model


@healthy
def bf16_autocast():
    def autocast(model, x, y):
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(model(x), y)

    model = nets.mlp(64, 10, width=96)
    return Training(model, adam(model), data.digits(), autocast, steps=300)


@healthy
def bf16_autocast_transformer():
    def autocast(model, x, y):
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        return F.cross_entropy(out.float(), y)

    model = nets.RowTransformer()
    return Training(model, adamw(model, 2e-3), data.digits(), autocast, steps=200)


@healthy
def bfloat16_weights_at_a_rate_that_moves_them():
    model = nets.mlp(64, 10).to(torch.bfloat16)
    found = data.digits()
    half = data.Data(found.x.bfloat16(), found.y, found.x_val.bfloat16(), found.y_val, 10)
    return Training(
        model,
        sgd(model, 0.1, 0.0),
        half,
        lambda m, x, y: F.cross_entropy(m(x).float(), y),
        steps=300,
    )


@healthy
def frozen_backbone():
    model = pretrained()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    return _digits(model, [torch.optim.Adam(model.head.parameters(), lr=1e-3)])


@healthy
def head_only_in_the_optimizer():
    # The backbone is not marked as frozen, only left out: common, and meant so.
    model = pretrained()
    return _digits(model, [torch.optim.Adam(model.head.parameters(), lr=1e-3)], steps=300)


@healthy
def fine_tuning_at_a_low_rate():
    model = pretrained()
    return _digits(model, adamw(model, 1e-4))


@healthy
def layer_wise_rates():
    model = pretrained()
    groups = [
        {"params": getattr(model, name).parameters(), "lr": lr}
        for name, lr in (("fc1", 1e-5), ("fc2", 1e-4), ("fc3", 3e-4), ("head", 1e-3))
    ]
    return _digits(model, [torch.optim.AdamW(groups)])


class Adapter(nn.Module):
    """A frozen linear layer with a trained low-rank update that starts at zero."""

    def __init__(self, inner: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.lora_A = nn.Parameter(
            torch.randn(rank, inner.in_features) / math.sqrt(inner.in_features)
        )
        self.lora_B = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x):
        return self.inner(x) + x @ self.lora_A.T @ self.lora_B.T


@healthy
def low_rank_adapters():
    model = pretrained()
    for name in ("fc1", "fc2", "fc3"):
        setattr(model, name, Adapter(getattr(model, name)))
    return _digits(
        model, [torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)]
    )


@healthy
def gradual_unfreezing():
    model = pretrained()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    training = _digits(model, adam(model, 1e-3))
    training.before.append(lambda step: model.requires_grad_(True) if step == 150 else None)
    return training


@healthy
def accumulated_gradients():
    model = nets.mlp(64, 10)
    optimizers = sgd(model, 0.05)

    def update(t, x, y, step):
        optimizers[0].zero_grad()
        losses = [t.loss(t.model, x[i::4], y[i::4]) / 4 for i in range(4)]
        for loss in losses:
            loss.backward()
        optimizers[0].step()
        return sum(loss.detach() for loss in losses)

    return _digits(model, optimizers, batch=64, update=update)


@healthy
def hard_clipping():
    model = nets.mlp(64, 10)
    return _digits(model, adam(model, 1e-3), clip=0.05)


@healthy
def two_optimizers():
    model = nets.mlp(64, 10)
    body = [*model.fc1.parameters(), *model.fc2.parameters()]
    head = torch.optim.SGD(model.head.parameters(), lr=0.05)
    return _digits(model, [torch.optim.Adam(body, lr=1e-3), head])


@healthy
def lbfgs():
    model = nets.mlp(13, 3, width=16, depth=1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)

    def update(t, x, y, step):
        def closure():
            optimizer.zero_grad()
            # The penalty keeps the optimum at finite weights.
            loss = t.loss(t.model, x, y) + 1e-3 * sum((p**2).sum() for p in t.model.parameters())
            loss.backward()
            return loss

        return optimizer.step(closure)

    return Training(
        model, [optimizer], data.wine(), cross_entropy, steps=120, batch=142, update=update
    )


@healthy
def loss_of_two_terms():
    model = nets.mlp(64, 11)

    def loss(model, x, y):
        out = model(x)
        return F.cross_entropy(out[:, :10], y) + 0.1 * F.mse_loss(out[:, 10], y / 10)

    return Training(model, adam(model, 1e-3), data.digits(), loss)


@healthy
def sum_of_losses():
    model = nets.mlp(64, 10)
    return Training(
        model,
        sgd(model, 0.002),
        data.digits(),
        lambda m, x, y: F.cross_entropy(m(x), y, reduction="sum"),
    )


@healthy
def stochastic_depth():
    class Model(nets.Residual):
        def forward(self, x):
            x = self.stem(x)
            for branch in self.branches:
                if not self.training or torch.rand(()) > 0.3:
                    x = x + branch(x)
            return self.head(self.norm(x))

    model = Model(64, 10, blocks=6)
    return _digits(model, adamw(model, 2e-3))


@healthy
def curriculum_of_easy_digits():
    model = nets.mlp(64, 10)
    training = _digits(model, adam(model, 1e-3), steps=600)
    easy = (training.data.y < 5).nonzero()[:, 0]
    calls = {"epochs": 0}

    def order(n, generator):
        calls["epochs"] += 1
        if calls["epochs"] <= 6:
            return easy[torch.randperm(len(easy), generator=generator)]
        return torch.randperm(n, generator=generator)

    training.order = order
    return training


@healthy
def one_bad_batch_that_is_forgotten():
    model = nets.mlp(64, 10)
    training = _digits(model, adam(model, 1e-3))
    training.corrupt = lambda x, y, step: (x * 20, y) if step == 150 else (x, y)
    return training


@healthy
def spectral_norm_and_weight_norm():
    model = nets.mlp(64, 10)
    nn.utils.parametrizations.spectral_norm(model.fc1)
    nn.utils.parametrizations.weight_norm(model.fc2)
    return _digits(model, adam(model, 2e-3))


@healthy
def warm_started():
    model = nets.mlp(64, 10)
    found = data.digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(model(found.x), found.y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return _digits(model, sgd(model, 0.003))
