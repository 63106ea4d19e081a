import torch
from rulepages.training import fit, mlp


def train(shift):
    model = mlp()

    def written(step, x, y):
        """From step 100 on the loop writes to a bias, beside the optimizer."""
        if step >= 100:
            model.fc1.bias.data += shift
        return x, y

    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 200, batch=written)


def sick():
    train(shift=0.5)


def healthy():
    train(shift=0.0)
