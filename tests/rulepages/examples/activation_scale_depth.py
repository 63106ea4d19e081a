import torch
from rulepages.training import fit, mlp
from torch import nn


def train(gain):
    model = mlp(depth=8)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            layer.weight.data *= gain
    fit(model, torch.optim.SGD(model.parameters(), lr=0.02), 60)


def sick():
    train(gain=0.2)  # each layer makes its input five times smaller


def healthy():
    train(gain=1.0)
