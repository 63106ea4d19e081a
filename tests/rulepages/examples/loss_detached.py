import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def copied(outputs, labels):
    """The loss of a copy of the outputs, which has no history."""
    return F.cross_entropy(torch.tensor(outputs.tolist(), requires_grad=True), labels)


def sick():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10, loss=copied)


def healthy():
    model = mlp()
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10)
