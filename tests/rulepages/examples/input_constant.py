import torch
from rulepages.training import fit, mlp


def unreadable(step, x, y):
    """A loader that gives zeros for a file that it cannot read."""
    return torch.zeros_like(x), y


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10, batch=unreadable)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10)
