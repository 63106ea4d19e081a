"""What monitoring costs, as it is reckoned and told."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trainvitals import hooks as tv
from trainvitals.hooks.accounts import Accounts, QuietCost


def share_after(cost: QuietCost, calls: int, in_rows: int) -> tuple[float, float]:
    """The share told after one span of 100 steps without a look, and its seconds."""
    accounts = Accounts(lambda: 0.0)
    accounts.start(0)
    accounts.quiet_cost = cost
    time.sleep(0.02)
    accounts.enter()
    span = accounts.close(100, calls, in_rows)
    return accounts.share, span.wall


def test_the_share_told_is_of_the_time_that_the_training_took_itself() -> None:
    share, wall = share_after(QuietCost(call=2e-6, saved=0.0, rest=1e-5), calls=5, in_rows=0)
    own = 100 * (5 * 2e-6 + 1e-5)
    assert share == pytest.approx(own / (wall - own), rel=0.05)


def test_a_watch_that_saves_more_than_it_takes_tells_a_share_below_zero() -> None:
    share, wall = share_after(QuietCost(call=0.0, saved=3e-6, rest=1e-5), calls=1, in_rows=20)
    saved = 100 * (20 * 3e-6 - 1e-5)
    assert share == pytest.approx(-saved / (wall + saved), rel=0.05)


def test_learning_what_a_quiet_step_costs_leaves_the_random_numbers_of_the_training_alone() -> None:
    model = nn.Linear(3, 2)
    before = torch.random.get_rng_state()
    tv.watch(model, torch.optim.SGD(model.parameters(), lr=0.1), strict=True)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_another_default_type_or_device_does_not_disturb_the_learning(
    kind: torch.dtype, recorded: Callable[[], Any]
) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.set_default_dtype(kind)
    try:
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
            tv.watch(model, optimizer, strict=True)
    finally:
        torch.set_default_dtype(torch.float32)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    assert set(recorded().samples("parameter")[0]) == {"weight", "bias"}
