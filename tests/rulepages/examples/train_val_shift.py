import torch
from rulepages.training import digits, mlp
from torch.nn import functional as F  # noqa: N812

import trainvitals.hooks as tv


def train(scaled):
    (inputs, labels), model = digits(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    tv.watch(model, optimizer, interval=1, strict=True)
    for step in range(60):
        chosen = torch.randint(1200, (64,))
        loss = F.cross_entropy(model(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tv.log({"train/loss": loss})
        if step % 20 == 19:
            with torch.no_grad():
                found = F.cross_entropy(model(scaled(inputs[1200:])), labels[1200:])
            tv.log({"val/loss": found})


def sick():
    """The points from 0 to 16, as the files have them."""
    train(scaled=lambda x: 6.0 * x + 4.9)


def healthy():
    train(scaled=lambda x: x)
