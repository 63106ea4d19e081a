import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def distance(epsilon):
    """A penalty whose root has no derivative where its argument is 0."""

    def loss(outputs, labels):
        apart = (outputs - outputs.detach()).square().sum()
        return F.cross_entropy(outputs, labels) + (apart + epsilon).sqrt()

    return loss


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 40, loss=distance(epsilon=0.0))


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 40, loss=distance(epsilon=1e-6))
