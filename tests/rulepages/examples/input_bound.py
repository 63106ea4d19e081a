from time import sleep

import torch
from rulepages.training import digits, mlp
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset

import trainvitals.hooks as tv


class Pictures(Dataset):
    """Digits that take some time to decode."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 1200

    def __getitem__(self, index):
        sleep(self.seconds)
        inputs, labels = digits()
        return inputs[index], labels[index]


def train(seconds):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    tv.watch(model, optimizer, interval=1, strict=True)
    for _ in range(2):
        for x, y in DataLoader(Pictures(seconds), batch_size=16, shuffle=True):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            tv.log({"train/loss": loss})


def sick():
    train(seconds=8e-4)


def healthy():
    train(seconds=0.0)
