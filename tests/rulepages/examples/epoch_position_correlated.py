import torch
from rulepages.training import digits, fit, mlp
from torch.utils.data import DataLoader, Dataset


class Augmented(Dataset):
    """Digits with noise that is drawn anew each time."""

    def __len__(self):
        return 800

    def __getitem__(self, index):
        inputs, labels = digits()
        return inputs[index] + 0.1 * torch.randn(64), labels[index]


def passes(shuffle):
    """Four passes of 100 batches."""
    batches = (batch for _ in range(4) for batch in DataLoader(Augmented(), 8, shuffle=shuffle))
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    fit(model, optimizer, 400, batch=lambda step, x, y: next(batches))


def sick():
    passes(shuffle=False)


def healthy():
    passes(shuffle=True)
