import torch
from rulepages.training import fit, mlp
from torch import nn


class Autocast(nn.Sequential):
    def forward(self, x):
        with torch.autocast("cpu", torch.float16):
            return super().forward(x)


def train(factor):
    model = Autocast(*mlp())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu")

    def update(loss):
        optimizer.zero_grad()
        scaler.scale(factor * loss).backward()
        scaler.step(optimizer)
        scaler.update()

    fit(model, optimizer, 60, update=update)


def sick():
    train(factor=1e9)  # no scale brings gradients of this size under 65,504


def healthy():
    train(factor=1.0)
