import torch
from rulepages.training import fit, mlp


def train(factor):
    model = mlp()
    with torch.no_grad():
        model.head.weight *= factor
    fit(model, torch.optim.SGD(model.parameters(), lr=1e-3), 10)


def sick():
    train(factor=100.0)  # sure of itself before it has seen anything


def healthy():
    train(factor=1.0)
