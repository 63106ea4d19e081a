import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def train(weights):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    fit(model, optimizer, 350, loss=lambda out, y: F.cross_entropy(out, y, weight=weights))


def sick():
    """Weights that count nothing but threes."""
    weights = torch.full((10,), 1e-6)
    weights[3] = 1.0
    train(weights)


def healthy():
    train(torch.ones(10))
