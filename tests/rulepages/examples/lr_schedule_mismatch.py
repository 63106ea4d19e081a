import torch
from rulepages.training import fit, mlp
from torch.optim.lr_scheduler import LinearLR


def train(per_epoch):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    schedule = LinearLR(optimizer, 1.0, 0.0, total_iters=10)

    def batch(step, x, y):
        """Ten epochs of 28 batches; the schedule is made for steps of one epoch each."""
        if step and step % per_epoch == 0:
            schedule.step()
        return x, y

    fit(model, optimizer, 140, batch=batch)


def sick():
    train(per_epoch=1)


def healthy():
    train(per_epoch=28)
