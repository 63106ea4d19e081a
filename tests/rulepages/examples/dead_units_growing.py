import torch
from rulepages.training import fit, mlp


def train(rate_of_decay):
    model = mlp()

    def drift(step, x, y):
        """From step 150 on, unit after unit of fc1 is pushed below zero for all inputs."""
        if step >= 150 and step % 10 == 0:
            with torch.no_grad():
                model.fc1.bias[(step - 150) // 10] -= rate_of_decay
        return x, y

    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 300, batch=drift)


def sick():
    train(rate_of_decay=50.0)


def healthy():
    train(rate_of_decay=0.01)
