import torch
from rulepages.training import digits, fit, mlp


def in_order(step, x, y):
    """Eight batches, the same ones in every pass."""
    inputs, labels = digits()
    begin = 64 * (step % 8)
    return inputs[begin : begin + 64], labels[begin : begin + 64]


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 24, batch=in_order)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 24)
