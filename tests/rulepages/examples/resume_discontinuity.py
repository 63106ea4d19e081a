import copy

import torch
from rulepages.training import another_life, digits, mlp
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv


def life(run, model, optimizer, steps):
    inputs, labels = digits()
    tv.watch(model, optimizer, interval=1, strict=True)
    for step in steps:
        if step == steps[0] > 0:
            run.resume_at(step)
        chosen = torch.randint(len(inputs), (64,))
        loss = F.cross_entropy(model(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tv.log({"train/loss": loss})


def train(loads):
    """A training whose second life goes on at step 100."""
    run, model = another_life(), mlp()
    life(run, model, torch.optim.SGD(model.parameters(), lr=0.3), range(100))
    saved = copy.deepcopy(model.state_dict())
    run, model = another_life(), mlp()
    if loads:
        model.load_state_dict(saved)
    life(run, model, torch.optim.SGD(model.parameters(), lr=0.3), range(100, 150))


def sick():
    train(loads=False)


def healthy():
    train(loads=True)
