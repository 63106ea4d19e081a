import torch
from rulepages.training import fit, mlp


def sick():
    model = mlp()
    fit(model, torch.optim.Adam(model.parameters(), lr=0.5), 20)


def healthy():
    model = mlp()
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 20)
