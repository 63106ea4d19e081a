import torch
from rulepages.training import fit, mlp


def train(rate):
    model = mlp()
    fit(model, torch.optim.Adam(model.parameters(), lr=rate), 160)


def sick():
    train(rate=1e-9)


def healthy():
    train(rate=1e-3)
