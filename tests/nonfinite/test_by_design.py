"""Layers that give -infinity, +infinity or NaN in every step and mean it hide no fault, and none is put on them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nonfinite.bench import BATCH, CLASSES, FEATURES, WIDTH, Case, Fault, Found, Training
from nonfinite.models import Net
from torch import Tensor, nn

STEPS = (7, 41)
"""At the first step nobody can know yet what a layer means."""


class Weigh(nn.Module):
    """Probabilities of scores; the scores are divided by 0 at the faulty step."""

    def __init__(self) -> None:
        super().__init__()
        self.by = Fault(lambda scores: scores / 0)

    def forward(self, scores: Tensor) -> Tensor:
        return self.by(scores).softmax(-1)  # type: ignore[no-any-return]


class Always(nn.Module):
    """The given code, in every step."""

    def __init__(self, code: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.code = code

    def forward(self, inputs: Tensor) -> Tensor:
        return self.code(inputs)


def causal(x: Tensor) -> Tensor:
    """Scores of every sample with those before it."""
    return (x @ x.T).masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -math.inf)


def others(x: Tensor) -> Tensor:
    """Distances of every sample from the others."""
    return torch.cdist(x, x).masked_fill(torch.eye(len(x)).bool(), math.inf)


def padded(x: Tensor) -> Tensor:
    """Rows of padding are NaN, for a later layer to leave out."""
    rows = torch.zeros(len(x), 1)
    rows[3] = math.nan
    return x + rows


def attention() -> nn.Module:
    def code(net: Any, x: Tensor) -> Tensor:
        x = net.inputs(x)
        out: Tensor = net.head(net.weigh(net.scores(x)) @ x)
        return out

    return Net(code, **ends(), scores=Always(causal), weigh=Weigh())


def ends() -> dict[str, nn.Module]:
    return {"inputs": nn.Linear(FEATURES, WIDTH), "head": nn.Linear(WIDTH, CLASSES)}


def behind(meant: Callable[[Tensor], Tensor], undone: Callable[[Tensor], Tensor]) -> nn.Module:
    """A layer that takes the logarithm of what is negative, behind one that means what it gives."""

    def code(net: Any, x: Tensor) -> Tensor:
        x = net.inputs(x)
        undone = net.undone(net.meant(x))
        x = undone @ x if undone.shape[-1] == BATCH else undone
        out: Tensor = net.head(net.late(net.mlp(x)))
        return out

    layers = {"meant": Always(meant), "undone": Always(undone), "mlp": nn.Linear(WIDTH, WIDTH)}
    return Net(code, **ends(), **layers, late=Fault(lambda x: (-x.abs() - 1).log()))


def policy() -> nn.Module:
    """Logits of actions, the last of which can't be taken."""

    def code(net: Any, x: Tensor) -> Tensor:
        out: Tensor = net.mask(net.head(net.inputs(x)))
        return out

    return Net(
        code,
        **ends(),
        mask=Always(lambda x: x.masked_fill(torch.arange(CLASSES) == CLASSES - 1, -math.inf)),
    )


def ratio(output: Any, on: bool) -> Tensor:
    """The mean ratio of new and old probabilities, which overflows at the faulty step."""
    actions = torch.arange(BATCH)[:, None] % (CLASSES - 1)
    new = output.log_softmax(-1).gather(1, actions)
    return (new - new.detach() + (200.0 if on else 0.0)).exp().mean()


class Observer(nn.Module):
    """Holds the smallest value so far, which nobody asks for yet; its code takes a logarithm at the faulty step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.on = nn.Linear(WIDTH, WIDTH), Fault(torch.log)
        self.register_buffer("smallest", torch.tensor(math.inf))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return (-x.abs() - 1).log() if self.on.on else x


CASES = {
    "a buffer that begins at infinity, then bad code": Case(
        lambda: Training(
            Net(lambda net, x: net.head(net.it(net.inputs(x))), **ends(), it=Observer())
        ),
        Found("forward", "it"),
        STEPS,
    ),
    "scores of a causal mask, then a temperature of 0": Case(
        lambda: Training(attention()), Found("forward", "weigh.by"), STEPS
    ),
    "distances of +infinity, then a bad layer": Case(
        lambda: Training(behind(others, lambda x: (-x).softmax(-1))),
        Found("forward", "late"),
        STEPS,
    ),
    "rows of NaN, then a bad layer": Case(
        lambda: Training(behind(padded, torch.nan_to_num)), Found("forward", "late"), STEPS
    ),
    "masked actions, then a bad loss": Case(
        lambda: Training(policy(), loss=ratio), Found("loss", ""), STEPS
    ),
}


@pytest.mark.parametrize("interval", [None, 10, 1])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_fault_is_found_elsewhere(
    check: Any, case: Case, step: int, interval: int | None
) -> None:
    watch = {} if interval is None else {"interval": interval}

    def build() -> Training:
        training = case.build()
        training.watch = watch
        return training

    check(Case(build, case.found), step)
