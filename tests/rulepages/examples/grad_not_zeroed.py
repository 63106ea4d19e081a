import torch
from rulepages.training import fit, mlp


def sick():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def update(loss):
        loss.backward()
        optimizer.step()

    fit(model, optimizer, 40, update=update)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 40)
