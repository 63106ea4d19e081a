import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def train(reduction):
    model = mlp()

    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels, reduction=reduction)

    fit(model, torch.optim.SGD(model.parameters(), lr=1e-3), 10, loss=loss)


def sick():
    train("sum")


def healthy():
    train("mean")
