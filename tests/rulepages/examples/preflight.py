import torch
from rulepages.training import digits, fit, mlp
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv


def train(model, parameters):
    inputs, labels = digits()
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    tv.preflight(model, (inputs[:64], labels[:64]), F.cross_entropy, optimizer)
    fit(model, optimizer, 10)


def sick():
    model = mlp()
    train(model, [*model.fc2.parameters(), *model.head.parameters()])  # fc1 is in no optimizer


def healthy():
    model = mlp()
    train(model, model.parameters())
