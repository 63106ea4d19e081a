import torch
from rulepages.training import fit, mlp


def ignored(step, x, y):
    """All labels of one batch are padding, so that their mean loss is 0/0."""
    return x, torch.full_like(y, -100) if step == 20 else y


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 40, batch=ignored)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 40)
