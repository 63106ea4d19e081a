import torch
from rulepages.training import fit, mlp
from torch import nn


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


def sick():
    model = mlp(nn.ReLU(), Detach(), depth=1)  # nothing in front of it learns
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 60)


def healthy():
    model = mlp(nn.ReLU(), depth=1)
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 60)
