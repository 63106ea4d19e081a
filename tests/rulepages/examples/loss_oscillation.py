import torch
from rulepages.training import digits, fit
from torch import nn
from torch.nn import functional as F  # noqa: N812

MOMENTUM = 0.9


def squares(output, labels):
    return F.mse_loss(output, F.one_hot(labels, 10).float())


def train(share):
    """At a share of the rate from which on the steps would climb the walls of the steepest valley."""
    inputs = digits()[0] + 2.0  # a mean far from 0 makes one direction much steeper than all others
    curvature = 0.2 * torch.linalg.eigvalsh(inputs.T @ inputs / len(inputs))[-1]
    rate = share * 2 * (1 + MOMENTUM) / float(curvature)
    model = nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM)
    fit(model, optimizer, 800, loss=squares, batch=lambda step, x, y: (x + 2.0, y))


def sick():
    train(share=0.95)


def healthy():
    train(share=0.05)
