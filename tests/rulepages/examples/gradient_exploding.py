import torch
from rulepages.training import fit, mlp


def unscaled(step, x, y):
    """From step 100 on pictures come 1600 times too large."""
    return (1600 * x if step >= 100 else x), y


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 120, batch=unscaled)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 120)
