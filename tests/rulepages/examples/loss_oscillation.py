import torch
from rulepages.training import fit, mlp


def train(rate):
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), 400)


def sick():
    train(rate=0.5)


def healthy():
    train(rate=0.02)
