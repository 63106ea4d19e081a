import torch
from rulepages.training import fit, mlp
from torch import nn
from torch.nn import functional as F  # noqa: N812


def train(unit, rate):
    model = mlp()
    model.head = nn.Linear(32, 1)

    def loss(outputs, labels):
        return F.mse_loss(outputs.squeeze(1), labels / 9 * unit)

    fit(model, torch.optim.SGD(model.parameters(), lr=rate), 10, loss=loss)


def sick():
    train(unit=1000.0, rate=1e-7)


def healthy():
    train(unit=1.0, rate=1e-2)
