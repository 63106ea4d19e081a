import torch
from rulepages.training import fit, mlp
from torch import nn


class Autocast(nn.Sequential):
    def forward(self, x):
        with torch.autocast("cpu", torch.float16):
            return super().forward(x)


def train(enabled):
    model = Autocast(*mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", enabled=enabled)

    def update(loss):
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    fit(model, optimizer, 10, update=update)


def sick():
    train(enabled=False)


def healthy():
    train(enabled=True)
