import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def train(factor):
    model = mlp()
    fit(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-3),
        60,
        loss=lambda outputs, labels: factor * F.cross_entropy(outputs, labels),
    )


def sick():
    train(factor=1e-8)


def healthy():
    train(factor=1.0)
