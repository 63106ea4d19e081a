import torch
from rulepages.training import fit, mlp
from torch import nn
from torch.nn import functional as F  # noqa: N812


def is_odd(probabilities, labels):
    return F.binary_cross_entropy(probabilities.squeeze(1), (labels % 2).float())


def train(last):
    model = mlp()
    model.head = nn.Linear(32, 1)
    model = nn.Sequential(*model, last)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10, loss=is_odd)


def sick():
    train(nn.Softmax(dim=1))  # e^x / e^x = 1


def healthy():
    train(nn.Sigmoid())
