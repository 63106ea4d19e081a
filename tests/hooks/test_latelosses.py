"""Losses that a device delivers later."""

import math

import torch

from trainvitals.hooks.latelosses import AT_ONCE, LateLosses


def test_the_steps_of_bad_losses_are_told_when_a_group_has_arrived() -> None:
    late = LateLosses()
    for step in range(2 * AT_ONCE):
        late.see(step, torch.tensor(math.nan if step in (3, AT_ONCE) else 1.0))
        if step < AT_ONCE - 1:
            assert late.bad_steps() == []
    assert late.bad_steps() == [3, AT_ONCE]
    assert late.bad_steps() == []


def test_waiting_gives_what_is_left() -> None:
    late = LateLosses()
    late.see(7, torch.tensor(-math.inf))
    assert late.bad_steps() == []
    assert late.bad_steps(wait=True) == [7]
