import torch
from rulepages.training import fit, mlp


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 40, zero_grad=False)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 40)
