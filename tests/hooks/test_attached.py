"""Watching that begins at odd places: in the midst of an optimizer's step."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import trainvitals.hooks as tv

REGISTER = {"pre": register_optimizer_step_pre_hook, "post": register_optimizer_step_post_hook}


class Loop:
    """Trains for eight steps; `once` is called in the third one, by the hook of a step that `at` says."""

    def __init__(self, at: str, once: Callable[["Loop"], object]) -> None:
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.optimizer = SGD(self.model.parameters(), 0.1)
        self.steps = 0
        self._once = once
        self._handles = [REGISTER[at](self._hook), REGISTER[at](lambda *_: None)]

    def _hook(self, *_: Any) -> None:
        if self.steps == 2:
            self._once(self)

    def watch(self, **options: Any) -> None:
        tv.watch(self.model, self.optimizer, **options)

    def run(self) -> None:
        try:
            for self.steps in range(8):
                self.optimizer.zero_grad()
                self.model(torch.randn(3, 4)).square().mean().backward()
                self.optimizer.step()
        finally:
            for handle in self._handles:
                handle.remove()


@pytest.fixture(params=["pre", "post"])
def at(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_to_begin_in_a_hook_of_a_step_says_what_to_do_and_harms_nothing(
    at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tv.init()
    Loop(at, Loop.watch).run()
    assert run.completed == 0
    assert "call it before the step or after it" in capsys.readouterr().err
    loop = Loop(at, lambda loop: None)
    loop.watch()
    loop.run()
    assert run.completed == 8


def test_to_begin_again_in_a_hook_ends_the_watch_and_no_more(
    at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(loop: Loop) -> None:
        tv.detach()
        loop.watch()

    run = tv.init()
    loop = Loop(at, again)
    loop.watch()
    loop.run()
    assert loop.steps == 7 and 2 <= run.completed <= 3
    assert "call it before the step or after it" in capsys.readouterr().err


def test_what_is_watched_already_may_be_watched_otherwise_from_a_hook(at: str) -> None:
    run = tv.init()
    loop = Loop(at, lambda loop: loop.watch(interval=1))
    loop.watch(interval=1000)
    loop.run()
    assert run.completed == 8


def test_a_reaction_is_not_added_in_a_hook(at: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = tv.init()
    loop = Loop(at, lambda loop: loop.watch(on_finding="stop"))
    loop.watch()
    loop.run()
    assert run.completed == 8
    assert "call it before the step or after it" in capsys.readouterr().err


def test_a_closure_may_begin_it() -> None:
    run = tv.init()
    calls: list[int] = []
    model = nn.Linear(3, 1)
    optimizer: Optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> torch.Tensor:
        if not calls:
            tv.watch(model, optimizer)
        calls.append(1)
        optimizer.zero_grad()
        loss = model(torch.ones(2, 3)).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)  # type: ignore[arg-type]
    assert run.completed >= 2
