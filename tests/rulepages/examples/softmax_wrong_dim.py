import torch
from rulepages.training import fit, mlp
from torch.nn import functional as F  # noqa: N812


def train(dim):
    model = mlp()

    def loss(outputs, labels):
        return F.nll_loss(outputs.log_softmax(dim), labels)

    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 10, loss=loss)


def sick():
    train(dim=0)  # over the 64 samples of the batch


def healthy():
    train(dim=1)  # over the 10 classes
