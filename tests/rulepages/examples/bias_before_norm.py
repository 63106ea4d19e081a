import torch
from rulepages.training import fit, mlp
from torch import nn


def train(bias):
    model = mlp(nn.BatchNorm1d(32), nn.ReLU(), depth=1)
    if not bias:
        model.fc1.bias = None
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20)


def sick():
    train(bias=True)


def healthy():
    train(bias=False)
