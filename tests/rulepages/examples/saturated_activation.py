import torch
from rulepages.training import fit, mlp
from torch import nn


def train(scale):
    model = mlp(nn.Tanh())
    nn.init.normal_(model.fc1.bias, std=scale)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 40)


def sick():
    train(scale=20.0)  # most units give -1 or 1 whatever the picture


def healthy():
    train(scale=0.1)
