import torch
from rulepages.training import fit, mlp
from torch import nn


class Log(nn.Module):
    def __init__(self, epsilon):
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x):
        return (x + self.epsilon).log()


def train(epsilon):
    model = nn.Sequential(Log(epsilon), nn.LayerNorm(64), *mlp())
    fit(model, torch.optim.SGD(model.parameters(), lr=0.1), 40)


def sick():
    train(epsilon=0.0)  # the pictures have black points: log(0)


def healthy():
    train(epsilon=1e-3)
