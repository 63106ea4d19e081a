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


def _pretrained(depth: int = 3) -> nn.Sequential:
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
    model = _pretrained()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    return _digits(model, [torch.optim.Adam(model.head.parameters(), lr=1e-3)])


@healthy
def head_only_in_the_optimizer():
    # The backbone is not marked as frozen, only left out: common, and meant so.
    model = _pretrained()
    return _digits(model, [torch.optim.Adam(model.head.parameters(), lr=1e-3)], steps=300)


@healthy
def fine_tuning_at_a_low_rate():
    model = _pretrained()
    return _digits(model, adamw(model, 1e-4))


@healthy
def layer_wise_rates():
    model = _pretrained()
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
    model = _pretrained()
    for name in ("fc1", "fc2", "fc3"):
        setattr(model, name, Adapter(getattr(model, name)))
    return _digits(
        model, [torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)]
    )


@healthy
def gradual_unfreezing():
    model = _pretrained()
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


class Variational(nn.Module):
    """A small variational autoencoder of digits."""

    def __init__(self):
        super().__init__()
        self.encode = nets.named(
            ("fc", nn.Linear(64, 64)), ("act", nn.ReLU()), ("out", nn.Linear(64, 16))
        )
        self.decode = nets.named(
            ("fc", nn.Linear(8, 64)), ("act", nn.ReLU()), ("out", nn.Linear(64, 64))
        )

    def forward(self, x):
        mean, log_var = self.encode(x).chunk(2, -1)
        code = mean + torch.randn_like(mean) * torch.exp(log_var / 2)
        return self.decode(code), mean, log_var


@healthy
def variational_autoencoder():
    def loss(model, x, y):
        out, mean, log_var = model(x)
        divergence = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(-1).mean()
        return ((out - x) ** 2).sum(-1).mean() + divergence

    model = Variational()
    return Training(model, adam(model, 1e-3), data.digits(), loss, validate=0)


@healthy
def adversarial_net():
    make = nets.mlp(8, 64, width=64)
    tell = nets.mlp(64, 1, width=64, act=nn.LeakyReLU)
    first = torch.optim.Adam(make.parameters(), lr=5e-4, betas=(0.5, 0.999))
    second = torch.optim.Adam(tell.parameters(), lr=5e-4, betas=(0.5, 0.999))

    def update(t, x, y, step):
        one, none = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        made = make(torch.randn(len(x), 8))
        second.zero_grad()
        found = F.binary_cross_entropy_with_logits(tell(x), one)
        found = found + F.binary_cross_entropy_with_logits(tell(made.detach()), none)
        found.backward()
        second.step()
        first.zero_grad()
        fooled = F.binary_cross_entropy_with_logits(tell(made), one)
        fooled.backward()
        first.step()
        return fooled

    return Training(
        make,
        [first, second],
        data.digits(),
        cross_entropy,
        watched=[make, tell],
        validate=0,
        update=update,
    )


@healthy
def contrastive():
    model = nets.mlp(64, 32, width=96)

    def loss(model, x, y):
        one, two = (F.normalize(model(x + 0.2 * torch.randn_like(x)), dim=1) for _ in range(2))
        return F.cross_entropy(one @ two.T / 0.2, torch.arange(len(x)))

    return Training(model, adam(model, 1e-3), data.digits(), loss)


@healthy
def policy_gradient():
    # A contextual bandit: name the digit, be paid for it. The logged loss says little, by design.
    model = nets.mlp(64, 10)

    def loss(model, x, y):
        chance = torch.distributions.Categorical(logits=model(x))
        action = chance.sample()
        reward = (action == y).float()
        return (
            -(chance.log_prob(action) * (reward - reward.mean())).mean()
            - 0.01 * chance.entropy().mean()
        )

    return Training(model, adam(model, 1e-3), data.digits(), loss, validate=0, steps=600)


@healthy
def q_learning_with_a_target_net():
    model, target = nets.mlp(64, 10), nets.mlp(64, 10)
    target.load_state_dict(model.state_dict())

    def loss(model, x, y):
        value = model(x).gather(1, y[:, None])[:, 0]
        with torch.no_grad():
            aim = 0.5 + 0.5 * target(x[torch.randperm(len(x))]).amax(1)
        return F.smooth_l1_loss(value, aim)

    training = Training(model, adam(model, 1e-3), data.digits(), loss, validate=0)
    training.before.append(
        lambda step: target.load_state_dict(model.state_dict()) if step % 50 == 0 else None
    )
    return training


@healthy
def physics_informed():
    # u'' = -u with u(0) = 0, u'(0) = 1, by double backward.
    model = nets.mlp(1, 1, width=32, depth=3, act=nn.Tanh)

    def loss(model, x, y):
        t = (3 * torch.rand(64, 1)).requires_grad_()
        u = model(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), t, create_graph=True)
        zero = torch.zeros(1, 1, requires_grad=True)
        start = model(zero)
        (first,) = torch.autograd.grad(start.sum(), zero, create_graph=True)
        return ((bend + u) ** 2).mean() + (start**2).sum() + ((first - 1) ** 2).sum()

    return Training(model, adam(model, 2e-3), data.digits(), loss, validate=0)


class Experts(nn.Module):
    """Four experts, of which a gate picks the best one for each sample."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(64, 4)
        self.experts = nn.ModuleList(nets.mlp(64, 10, width=32, depth=1) for _ in range(4))

    def forward(self, x):
        gate = self.gate(x).softmax(-1)
        value, best = gate.max(-1)
        out = x.new_zeros(len(x), 10)
        for index, expert in enumerate(self.experts):
            chosen = best == index
            if chosen.any():
                out[chosen] = value[chosen, None] * expert(x[chosen])
        return out


@healthy
def mixture_of_experts():
    model = Experts()
    return _digits(model, adam(model, 3e-3))


@healthy
def moving_average_teacher():
    model, teacher = nets.mlp(64, 10), nets.mlp(64, 10)
    teacher.load_state_dict(model.state_dict())
    teacher.requires_grad_(False)

    def loss(model, x, y):
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
            aim = teacher(x).softmax(-1)
        out = model(x)
        return F.cross_entropy(out, y) + 0.1 * F.kl_div(
            out.log_softmax(-1), aim, reduction="batchmean"
        )

    return Training(model, adam(model, 1e-3), data.digits(), loss)


@healthy
def distillation():
    teacher = _pretrained().requires_grad_(False)
    model = nets.mlp(64, 10, width=32)

    def loss(model, x, y):
        aim = (teacher(x) / 2).softmax(-1)
        return F.kl_div(
            (model(x) / 2).log_softmax(-1), aim, reduction="batchmean"
        ) + F.cross_entropy(model(x), y)

    return Training(model, adam(model, 2e-3), data.digits(), loss)


@healthy
def metric_learning():
    model = nets.mlp(64, 16, width=64)

    def loss(model, x, y):
        code = F.normalize(model(x), dim=1)
        same = y[:, None] == y[None]
        apart = torch.cdist(code, code)
        return (apart * same).sum() / same.sum() + F.relu(1 - apart)[~same].mean()

    return Training(model, adam(model, 1e-3), data.digits(), loss)


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
