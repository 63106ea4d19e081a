import torch
from rulepages.training import fit, mlp
from torch import nn
from torch.nn import functional as F  # noqa: N812


def train(even, odd):
    """Tell odd digits from even ones, which have these targets."""
    model = mlp()
    model.head = nn.Linear(32, 1)

    def loss(outputs, labels):
        targets = torch.where(labels % 2 == 1, odd, even)
        return F.binary_cross_entropy_with_logits(outputs.squeeze(1), targets)

    fit(model, torch.optim.SGD(model.parameters(), lr=0.01), 10, loss=loss)


def sick():
    train(even=-1.0, odd=1.0)


def healthy():
    train(even=0.0, odd=1.0)
