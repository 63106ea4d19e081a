import torch
from rulepages.training import fit, mlp


def sick():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def update(loss):
        loss.backward()
        optimizer.zero_grad()  # what backward has just made
        optimizer.step()

    fit(model, optimizer, 10, update=update)


def healthy():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def update(loss):
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    fit(model, optimizer, 10, update=update)
