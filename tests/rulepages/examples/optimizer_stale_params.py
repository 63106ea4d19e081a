import torch
from rulepages.training import fit, mlp


def sick():
    optimizer = torch.optim.SGD(mlp().parameters(), lr=0.05)
    fit(mlp(), optimizer, 20)  # made anew, after the optimizer


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20)
