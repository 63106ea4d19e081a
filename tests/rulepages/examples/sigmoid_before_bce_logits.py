import torch
from rulepages.training import fit, mlp
from torch import nn
from torch.nn import functional as F  # noqa: N812


def is_odd(outputs, labels):
    return F.binary_cross_entropy_with_logits(outputs.squeeze(1), (labels % 2).float())


def train(*tail):
    model = mlp()
    model.head = nn.Linear(32, 1)
    model = nn.Sequential(*model, *tail)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10, loss=is_odd)


def sick():
    train(nn.Sigmoid())


def healthy():
    train()
