import torch
from rulepages.training import fit, mlp


def by_label(step, x, y):
    order = y.argsort(stable=True)
    return x[order], y[order]


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20, batch=by_label)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20)
