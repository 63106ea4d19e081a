import torch
from rulepages.training import fit, mlp


def sick():
    model = mlp()
    held = [*model.fc1.parameters(), *model.head.parameters()]  # fc2 was forgotten
    fit(model, torch.optim.Adam(held, lr=1e-3), 60)


def healthy():
    model = mlp()
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 60)
