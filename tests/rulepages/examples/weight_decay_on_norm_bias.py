import torch
from rulepages.training import fit, mlp


def sick():
    model = mlp()
    fit(model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1), 20)


def healthy():
    model = mlp()
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    fit(model, torch.optim.AdamW(groups, lr=1e-3), 20)
