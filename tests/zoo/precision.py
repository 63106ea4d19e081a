"""Mixed precision, with and without a gradient scaler."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from tests.zoo.architectures import small_net
from tests.zoo.harness import Condition
from tests.zoo.loops import batch
from tests.zoo.session import STEPS, Session


def autocast_bfloat16(zoo: Session) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    for _ in range(STEPS):
        inputs, labels = batch()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(model(inputs), labels)
        loss.backward()
        zoo.step(optimizer)
        zoo.loss(loss)


def half_precision_weights(zoo: Session) -> None:
    model = small_net().to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zoo.watch(model, optimizer)
    zoo.classify(model, optimizer, call=lambda inputs: model(inputs.to(torch.bfloat16)).float())


def _scaled(
    zoo: Session,
    kind: torch.dtype,
    scale: float,
    spoil: Callable[[int, nn.Module], None],
    unscale: bool,
) -> None:
    """Trains until `STEPS` optimizer steps were made; those with an infinite gradient are skipped."""
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=3)
    zoo.watch(model, optimizer)
    made = skips = attempt = 0
    while made < STEPS and attempt < 4 * STEPS:
        inputs, labels = batch()
        optimizer.zero_grad()
        with torch.autocast("cpu", kind):
            loss = functional.cross_entropy(model(inputs), labels)
        scaler.scale(loss).backward()
        spoil(attempt, model)
        skipped = not all(bool(p.grad.isfinite().all()) for p in model.parameters())
        if unscale or zoo.simple:
            scaler.unscale_(optimizer)
            zoo.gradients(optimizer)
        if unscale:
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        zoo.step(optimizer, by=lambda: scaler.step(optimizer), skipped=skipped)
        scaler.update()
        zoo.loss(loss)
        made, skips, attempt = made + (not skipped), skips + skipped, attempt + 1
    assert skips > 0


def _overflow_by_itself(attempt: int, model: nn.Module) -> None:
    pass


def _spoil_the_third(attempt: int, model: nn.Module) -> None:
    if attempt == 2:
        model[0].weight.grad[0, 0] = float("inf")


def scaler_float16(zoo: Session) -> None:
    _scaled(zoo, torch.float16, 2.0**20, _overflow_by_itself, unscale=False)


def scaler_bfloat16(zoo: Session) -> None:
    _scaled(zoo, torch.bfloat16, 2.0**10, _spoil_the_third, unscale=False)


def scaler_float16_unscaled_and_clipped(zoo: Session) -> None:
    _scaled(zoo, torch.float16, 2.0**20, _overflow_by_itself, unscale=True)


def scaler_bfloat16_unscaled_and_clipped(zoo: Session) -> None:
    _scaled(zoo, torch.bfloat16, 2.0**10, _spoil_the_third, unscale=True)


CONDITIONS = [
    Condition("autocast bfloat16", autocast_bfloat16),
    Condition("bfloat16 weights", half_precision_weights, tolerance=5e-3),
    Condition("GradScaler float16, skipped steps", scaler_float16),
    Condition("GradScaler bfloat16, skipped steps", scaler_bfloat16),
    Condition("GradScaler float16, unscale_ and clip", scaler_float16_unscaled_and_clipped),
    Condition("GradScaler bfloat16, unscale_ and clip", scaler_bfloat16_unscaled_and_clipped),
]
