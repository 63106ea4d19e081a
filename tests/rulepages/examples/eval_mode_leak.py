import torch
from rulepages.training import digits, fit, mlp
from torch import nn


def train(mode):
    """Train, and evaluate in this mode at every tenth step."""
    model = mlp(nn.ReLU(), nn.Dropout(0.2))

    def batch(step, x, y):
        if step % 10 == 9:
            model.train(mode)
            with torch.no_grad():
                for held_out in digits()[0][-192:].split(64):
                    model(held_out)
            model.train()
        return x, y

    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 40, batch=batch)


def sick():
    train(mode=True)


def healthy():
    train(mode=False)
