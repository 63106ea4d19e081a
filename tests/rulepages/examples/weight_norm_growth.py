import torch
from rulepages.training import fit, mlp


def train(factor):
    model = mlp()

    def scaled(step, x, y):
        """The loop writes to weights, beside the optimizer."""
        model.fc2.weight.data *= factor
        return x, y

    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 120, batch=scaled)


def sick():
    train(factor=1.05)


def healthy():
    train(factor=1.0)
