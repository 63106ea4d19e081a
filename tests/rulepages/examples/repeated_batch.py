import torch
from rulepages.training import digits, fit, mlp


def first(step, x, y):
    """The first 64 pictures, at every step."""
    inputs, labels = digits()
    return inputs[:64], labels[:64]


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20, batch=first)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20)
