import torch
from rulepages.training import fit, mlp


def train(kept):
    """Of one batch the labels from `kept` on are padding, which cross-entropy ignores."""
    model = mlp()

    def batch(step, x, y):
        return x, torch.where(torch.arange(len(y)) < kept, y, -100) if step == 2 else y

    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10, batch=batch)


def sick():
    train(kept=0)


def healthy():
    train(kept=32)
