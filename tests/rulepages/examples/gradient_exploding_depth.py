import torch
from rulepages.training import fit, mlp
from torch import nn


def train(gain):
    model = mlp(nn.Tanh(), depth=10)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
    fit(model, torch.optim.SGD(model.parameters(), lr=1e-4), 60)


def sick():
    train(gain=20.0)


def healthy():
    train(gain=1.0)
