import torch
from rulepages.training import fit, mlp


def train(decay):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=decay)
    fit(model, optimizer, 200)


def sick():
    train(decay=50.0)  # every step takes a twentieth of the weights


def healthy():
    train(decay=0.01)
