import torch
from rulepages.training import fit, mlp, on_ranks
from torch.nn.parallel import DistributedDataParallel


def train(rank, unfrozen_late):
    model = mlp()
    model.head.requires_grad_(not unfrozen_late)
    replica = DistributedDataParallel(model)
    model.head.requires_grad_(True)  # its gradients are averaged only where they were wanted before
    torch.manual_seed(rank)
    fit(replica, torch.optim.SGD(model.parameters(), lr=0.05), 12)


def late(rank):
    train(rank, unfrozen_late=True)


def early(rank):
    train(rank, unfrozen_late=False)


def sick():
    on_ranks(late)


def healthy():
    on_ranks(early)
