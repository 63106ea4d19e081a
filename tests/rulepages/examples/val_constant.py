from copy import deepcopy

import torch
from rulepages.training import digits, fit, mlp
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv


def train(model, evaluated):
    inputs, labels = digits()

    def validated(step, x, y):
        if step % 20 == 19:
            with torch.no_grad():
                tv.log({"val/loss": F.cross_entropy(evaluated(inputs[-500:]), labels[-500:])})
        return x, y

    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 140, batch=validated)


def sick():
    model = mlp()
    train(model, deepcopy(model))  # the copy never learns


def healthy():
    model = mlp()
    train(model, model)
