import torch
from rulepages.training import fit, mlp
from torch import nn


def train(samples):
    model = mlp(nn.BatchNorm1d(32), nn.ReLU(), depth=1)

    def batch(step, x, y):
        return x[:samples], y[:samples]

    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 10, batch=batch)


def sick():
    train(samples=3)


def healthy():
    train(samples=64)
