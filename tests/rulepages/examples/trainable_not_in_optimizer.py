import torch
from rulepages.training import fit, mlp


def sick():
    model = mlp()
    fit(model, torch.optim.Adam(model.head.parameters(), lr=1e-3), 60)


def healthy():
    model = mlp()
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 60)
