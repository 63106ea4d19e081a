import torch
from rulepages.training import fit, mlp
from torch import nn


class Log(nn.Module):
    def forward(self, x):
        return x.log()


class LogOfSize(nn.Module):
    def forward(self, x):
        return x.abs().log1p()


def train(first):
    model = nn.Sequential(first, *mlp())
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 40)


def sick():
    train(Log())  # half of the points are below 0


def healthy():
    train(LogOfSize())
