import torch
from rulepages.training import fit, mlp
from torch import nn


def train(gain):
    model = mlp(nn.LeakyReLU(0.5), depth=8)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
    nn.init.normal_(model.fc1.weight, std=1e-3)
    fit(model, torch.optim.SGD(model.parameters(), lr=1e-5), 60)


def sick():
    train(gain=6.0)  # each layer makes gradients over weights larger towards the input


def healthy():
    train(gain=1.3)
