import torch
from rulepages.training import fit, mlp
from torch import nn


def sick():
    model = mlp()
    nn.init.constant_(model.fc1.weight, 0.01)
    nn.init.zeros_(model.fc1.bias)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20)


def healthy():
    model = mlp()
    nn.init.kaiming_normal_(model.fc1.weight)
    nn.init.zeros_(model.fc1.bias)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20)
