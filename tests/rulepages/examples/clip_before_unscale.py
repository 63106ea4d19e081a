import torch
from rulepages.training import fit, mlp
from torch import nn


def train(unscale):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu")

    def update(loss):
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if unscale:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    fit(model, optimizer, 10, update=update)


def sick():
    train(unscale=False)  # gradients 65,536 times too large are clipped, and then divided


def healthy():
    train(unscale=True)
