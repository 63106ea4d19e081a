import torch
from rulepages.training import fit, mlp


def train(factor):
    model = mlp()

    def average(step, x, y):
        """From step 100 on a moving average is written back whose factors do not add up to 1."""
        if step >= 100:
            model.fc1.weight.data *= factor
        return x, y

    fit(model, torch.optim.SGD(model.parameters(), lr=0.02), 200, batch=average)


def sick():
    train(factor=1.1)


def healthy():
    train(factor=1.0)
