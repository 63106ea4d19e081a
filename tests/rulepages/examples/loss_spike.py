import torch
from rulepages.training import fit, mlp


def broken(step, x, y):
    """From step 60 on every twentieth batch comes 50 times too large."""
    return (50 * x if step >= 60 and step % 20 == 0 else x), y


def sick():
    model = mlp()
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 180, batch=broken)


def healthy():
    model = mlp()
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 180)
