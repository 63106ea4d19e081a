import torch
from rulepages.training import fit, mlp
from torch import nn


def train(loss):
    model = mlp()
    model.head = nn.Linear(32, 1)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 10, loss=loss)


def sick():
    train(lambda outputs, labels: (outputs - labels / 9).square().mean())  # (64, 1) − (64,)


def healthy():
    train(lambda outputs, labels: (outputs.squeeze(1) - labels / 9).square().mean())
