import torch
from rulepages.training import fit, mlp
from torch import nn


def train(mode):
    model = mlp(nn.BatchNorm1d(32), nn.ReLU(), depth=1)
    norm = model.act1.requires_grad_(False)
    norm.train(mode)
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fit(model, torch.optim.SGD(rest, lr=0.05), 10)


def sick():
    train(mode=True)


def healthy():
    train(mode=False)
