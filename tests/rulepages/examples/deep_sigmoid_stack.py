import torch
from rulepages.training import fit, mlp
from torch import nn


def train(activation):
    model = mlp(activation, depth=4)
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 20)


def sick():
    train(nn.Tanh())


def healthy():
    train(nn.ReLU())
