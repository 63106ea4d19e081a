import torch
from rulepages.training import digits, fit, mlp


def one_folder_after_another(step, x, y):
    inputs, labels = digits()
    chosen = (labels == step % 10).nonzero()[:64, 0]
    return inputs[chosen], labels[chosen]


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 20, batch=one_folder_after_another)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 20)
