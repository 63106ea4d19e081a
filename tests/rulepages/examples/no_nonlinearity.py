import torch
from rulepages.training import fit, mlp
from torch import nn


def train(activation):
    model = mlp(activation)
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 20)


def sick():
    train(nn.Dropout(0.1))


def healthy():
    train(nn.ReLU())
