"""Healthy trainings whose goal is not a label: codes, games, rewards, equations, teachers."""

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.diagnosis import data, nets
from benchmarks.diagnosis.bases import adam, cross_entropy
from benchmarks.diagnosis.healthy import healthy
from benchmarks.diagnosis.odd_loops import pretrained
from benchmarks.diagnosis.training import Training


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
    return Training(model, adam(model, 3e-3), data.digits(), cross_entropy)


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
    teacher = pretrained().requires_grad_(False)
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
