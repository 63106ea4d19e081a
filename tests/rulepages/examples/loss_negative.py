import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def train(sign):
    model = mlp()

    def loss(outputs, labels):
        return sign * F.cross_entropy(outputs, labels)

    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 10, loss=loss)


def sick():
    train(sign=-1)


def healthy():
    train(sign=1)
