import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def sick():
    model = mlp()

    def loss(outputs, labels):
        """Of the outputs' mean over the classes, a single one: its softmax is 1 in every step."""
        single = outputs.mean(1, keepdim=True)
        return F.cross_entropy(single, torch.zeros_like(labels)) + 0.5

    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 40, loss=loss)


def healthy():
    model = mlp()
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 40)
