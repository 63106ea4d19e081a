import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def train(dtype):
    model = mlp().to(dtype)
    fit(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-5),
        60,
        batch=lambda step, x, y: (x.to(dtype), y),
        loss=lambda outputs, labels: F.cross_entropy(outputs.float(), labels),
    )


def sick():
    train(torch.bfloat16)  # a step of 1e-5 is lost in weights around 0.1


def healthy():
    train(torch.float32)
