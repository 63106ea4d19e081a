import torch
from rulepages.training import fit, mlp


def few_threes(step, x, y):
    kept = (y != 3) | (torch.rand(len(y)) < 0.05)
    return x[kept], y[kept]


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 25, batch=few_threes)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 25)
