import torch
from rulepages.training import fit, mlp


def train(factor):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def schedule(step, x, y):
        if step == 100:
            optimizer.param_groups[0]["lr"] *= factor
        return x, y

    fit(model, optimizer, 180, batch=schedule)


def sick():
    train(factor=300.0)


def healthy():
    train(factor=0.3)
