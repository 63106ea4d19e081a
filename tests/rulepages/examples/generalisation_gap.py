import torch
from rulepages.training import digits, fit, mlp
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv


def train(samples):
    model = mlp(width=64)
    inputs, labels = digits()

    def few(step, x, y):
        """Of the first `samples` pictures; every 10 steps a validation on the last 500."""
        if step % 10 == 0:
            with torch.no_grad():
                tv.log({"val/loss": F.cross_entropy(model(inputs[-500:]), labels[-500:])})
        chosen = torch.randint(samples, (len(x),))
        return inputs[chosen], labels[chosen]

    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 150, batch=few)


def sick():
    train(samples=40)


def healthy():
    train(samples=1200)
