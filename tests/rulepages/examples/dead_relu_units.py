import torch
from rulepages.training import fit, mlp
from torch import nn


def train(bias):
    model = mlp(depth=2)
    nn.init.constant_(model.fc1.bias, bias)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 100)


def sick():
    train(bias=-20.0)  # no input lifts a unit of act1 above 0


def healthy():
    train(bias=0.0)
