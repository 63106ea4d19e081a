import torch
from rulepages.training import fit, mlp
from torch import nn
from torch.nn import functional as F  # noqa: N812


def train(loss):
    model = mlp()
    model.head = nn.Linear(32, 1)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 10, loss=loss)


def sick():
    train(lambda outputs, labels: F.mse_loss(outputs, labels / 9))  # (64, 1) against (64,)


def healthy():
    train(lambda outputs, labels: F.mse_loss(outputs.squeeze(1), labels / 9))
