import torch
from rulepages.training import fit, mlp
from torch import nn


def train(bias):
    model = mlp(nn.Tanh(), depth=3)
    nn.init.constant_(model.fc2.bias, bias)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 160)


def sick():
    train(bias=40.0)  # act2 is 1 for every picture


def healthy():
    train(bias=0.0)
