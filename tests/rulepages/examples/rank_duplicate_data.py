import torch
from rulepages.training import fit, mlp, on_ranks
from torch.nn.parallel import DistributedDataParallel


def train(rank, seed):
    model = DistributedDataParallel(mlp())
    torch.manual_seed(seed)  # of the samples that `fit` draws
    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 12)


def same_seed(rank):
    train(rank, seed=0)


def own_seed(rank):
    train(rank, seed=rank)


def sick():
    on_ranks(same_seed)


def healthy():
    on_ranks(own_seed)
