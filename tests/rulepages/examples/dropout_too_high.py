import torch
from rulepages.training import fit, mlp
from torch import nn


def train(dropout):
    model = mlp(nn.ReLU(), nn.Dropout(dropout))
    fit(model, torch.optim.Adam(model.parameters(), lr=1e-3), 20)


def sick():
    train(dropout=0.8)


def healthy():
    train(dropout=0.2)
