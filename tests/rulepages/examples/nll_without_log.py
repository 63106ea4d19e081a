import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def train(loss):
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10, loss=loss)


def sick():
    train(lambda outputs, labels: F.nll_loss(outputs.softmax(1), labels))


def healthy():
    train(lambda outputs, labels: F.nll_loss(outputs.log_softmax(1), labels))
