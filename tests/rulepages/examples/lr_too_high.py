import torch
from rulepages.training import fit, mlp


def train(rate):
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=rate), 150)


def sick():
    train(rate=20.0)  # steps larger than the weights, and a loss that runs away


def healthy():
    train(rate=0.05)
