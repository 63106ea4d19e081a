import torch
from rulepages.training import fit, mlp


def train(milestones):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)

    def update(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    fit(model, optimizer, 500, update=update)


def sick():
    train(milestones=[30, 60, 80, 90])  # meant in epochs, counted in batches


def healthy():
    train(milestones=[480, 490])
