import torch
from rulepages.training import another_life, fit, mlp


def train(kept):
    """On a GPU that this example makes up: what readings of its memory show if each step keeps `kept` GiB."""
    run, model = another_life(), mlp()

    def batch(step, x, y):
        between_steps = 2.0 + kept * step
        run.report(step, {"tv/system/gpu_memory/0": between_steps + 1.5 * float(torch.rand(()))})
        return x, y

    fit(model, torch.optim.SGD(model.parameters(), lr=0.05), 300, batch=batch)


def sick():
    """losses.append(loss), with the graph of each step."""
    train(kept=0.01)


def healthy():
    train(kept=0.0)
