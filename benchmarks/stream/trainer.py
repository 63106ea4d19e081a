"""A small training, run as a script: `trainer.py STEPS PAUSE_S BROKEN`. Prints its run's id, then each step."""

import sys
import time

import torch
from torch import nn

import trainvitals.hooks as tv


def main(steps: int, pause_s: float, broken: int) -> None:
    """Train for `steps` steps. broken: the step whose batch holds a NaN, -1 for none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = tv.init(project="stream", name="trainer")
    print(run.id, flush=True)
    tv.watch(model, optimizer)
    for step in range(steps):
        x = torch.randn(32, 8)
        if step == broken:
            x[0, 0] = float("nan")
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tv.log({"train/loss": loss, "train/index": step})
        print(step, flush=True)
        time.sleep(pause_s)
    tv.finish()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
