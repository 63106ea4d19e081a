import torch
from rulepages.training import fit, mlp
from torch import nn


def train(mode):
    model = mlp(nn.ReLU(), nn.Dropout(0.2))
    model.train(mode)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10)


def sick():
    train(mode=False)


def healthy():
    train(mode=True)
