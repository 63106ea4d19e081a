"""Whether the model can learn at all: one batch by heart, and from its inputs rather than without them."""

import math
from collections.abc import Iterator
from time import perf_counter

import torch
from torch import Tensor

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.checks.subject import (
    Batch,
    Subject,
    Trained,
    inputs_of,
    mapped,
    part,
    target_of,
)
from trainvitals.hooks.checks.verdicts import failed, passed, skipped
from trainvitals.hooks.wire.observed import Checked

SAMPLES = 16
STEPS = 300
SECONDS = 8.0
"""For one learning rate."""
LEARNT = 0.05
"""Share of the first loss that is left of a batch known by heart."""
PROBE_STEPS = 50
USEFUL = 0.98
"""Share of the loss without inputs that the loss with them must stay below."""


def overfit_one_batch(subject: Subject) -> Iterator[Checked]:
    """16 samples by heart, at the given learning rate, or at a tenth or ten times of it."""
    batch = part(subject.batches[0], slice(0, SAMPLES))
    tried = []
    for factor in (1.0, 0.1, 10.0):
        first, best, steps = _fit(subject, batch, factor)
        tried.append(f"×{factor:g}: {first:.3g} → {best:.3g}")
        if best <= LEARNT * abs(first) or (factor == 1.0 and first <= 1e-3):
            if factor == 1.0:
                yield passed("overfit-one-batch", f"loss {first:.3g} → {best:.3g} in {steps} steps")
                return
            yield failed(
                "overfit-one-batch",
                "warning",
                f"learns {SAMPLES} samples by heart at {factor:g} times the learning rate only ({'; '.join(tried)})",
                "at the given learning rate, within 300 steps",
                f"Try a learning rate {factor:g} times as high.",
            )
            return
    noisy = _contradictory(batch)
    yield failed(
        "overfit-one-batch",
        "info" if noisy else "critical",
        f"does not learn {SAMPLES} samples by heart ({'; '.join(tried)})",
        f"below {100 * LEARNT:.0f} % of the first loss within {STEPS} steps",
        "Equal inputs with different labels: take another batch."
        if noisy
        else "Check the wiring: labels that belong to their inputs, an output that can reach the targets, no softmax "
        "before cross-entropy, no detached part. Losses that cannot reach 0 (contrastive, GAN, a noise floor) do not "
        "count.",
    )


def _fit(subject: Subject, batch: Batch, factor: float) -> tuple[float, float, int]:
    """First and best loss of a fresh copy, and steps taken."""
    trained = subject.calm()
    for group in trained.optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    end = perf_counter() + SECONDS
    first = best = subject.step(trained, batch)
    steps = 1
    while steps < STEPS and perf_counter() < end and best > LEARNT * abs(first) / 2:
        loss = subject.step(trained, batch)
        if not math.isfinite(loss):
            break
        best = min(best, loss)
        steps += 1
    return first, best, steps


def _contradictory(batch: Batch) -> bool:
    """Whether equal inputs have different labels."""
    inputs, target = inputs_of(batch), target_of(batch)
    if (
        isinstance(inputs, dict)
        or not isinstance(inputs[0], Tensor)
        or not isinstance(target, Tensor)
    ):
        return False
    seen: dict[bytes, bytes] = {}
    for row, label in zip(inputs[0].cpu(), target.cpu(), strict=False):
        key, value = as_numpy(row).tobytes(), as_numpy(label).tobytes()
        if seen.setdefault(key, value) != value:
            return True
    return False


def input_dependence(subject: Subject) -> Iterator[Checked]:
    """After 50 steps on one batch the loss is lower with the inputs than with zeros in their place."""
    batch = part(subject.batches[0], slice(0, 2 * SAMPLES))
    target = target_of(batch)
    if target is None:
        yield skipped("input-dependence", "the target is not apart from the inputs")
        return
    if isinstance(target, Tensor) and bool((target == target[:1]).all()):
        yield skipped("input-dependence", "all labels of the batch are the same")
        return
    blank = [*mapped(inputs_of(batch), torch.zeros_like), target]
    trained = [subject.calm() for _ in range(2)]
    losses = [_after(subject, one, data) for one, data in zip(trained, (batch, blank), strict=True)]
    said = f"loss {losses[0]:.3g} with inputs, {losses[1]:.3g} without, after {PROBE_STEPS} steps"
    if losses[0] < USEFUL * losses[1] or losses[0] < 1e-6:
        yield passed("input-dependence", said)
        return
    yield failed(
        "input-dependence",
        "critical",
        said,
        "a lower loss with the inputs",
        "Check that the inputs reach the output: a dead layer, a constant output, inputs that are overwritten, labels "
        "that have nothing to do with them; or a learning rate that is far too high or low.",
    )


def _after(subject: Subject, trained: Trained, batch: Batch) -> float:
    end = perf_counter() + SECONDS
    loss = math.inf
    for _ in range(PROBE_STEPS):
        loss = subject.step(trained, batch)
        if perf_counter() > end or not math.isfinite(loss):
            break
    return loss
