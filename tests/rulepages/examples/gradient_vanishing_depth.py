import torch
from rulepages.training import fit, mlp
from torch import nn


def sick():
    model = mlp(nn.Sigmoid(), depth=8)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 60)


def healthy():
    model = mlp(nn.ReLU(), depth=8)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.02), 60)
