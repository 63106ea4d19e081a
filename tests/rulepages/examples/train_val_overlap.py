import torch
from rulepages.training import digits, mlp
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Subset, TensorDataset

import trainvitals.hooks as tv


def train(evaluated):
    data, model = TensorDataset(*digits()), mlp()
    loader = DataLoader(Subset(data, range(1024)), 64, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    tv.watch(model, optimizer, interval=1, strict=True)
    for _ in range(2):
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for x, _ in DataLoader(Subset(data, evaluated), 256):
                model(x)
        model.train()


def sick():
    train(evaluated=range(900, 1797))


def healthy():
    train(evaluated=range(1024, 1797))
