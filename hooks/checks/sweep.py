"""Which learning rates the model bears: a sweep over seven decades in a hundred steps, on a copy."""

import math
from collections.abc import Iterator
from time import perf_counter
from typing import NamedTuple

from trainvitals.hooks.checks.subject import Subject
from trainvitals.hooks.checks.verdicts import failed, passed, skipped
from trainvitals.hooks.wire.observed import Checked

LOWEST = 1e-7
HIGHEST = {
    "SGD": 10.0,
    "Adam": 1.0,
    "AdamW": 1.0,
    "NAdam": 1.0,
    "RAdam": 1.0,
    "Adamax": 1.0,
    "RMSprop": 1.0,
    "Adagrad": 1.0,
}
"""Last rate of the sweep for each optimizer. Others (LBFGS, Adafactor, those that find their rate themselves) mean
something else by it."""
STEPS = 100
SECONDS = 20.0
SMOOTH = 0.8
"""Share that a smoothed loss keeps of what it was."""
DIVERGED = 4.0
"""Times the best smoothed loss, and half of the fall lost again: a loss near zero quadruples for nothing."""
APART = 4
"""Steps at least between two losses that are compared."""
NEAR = 3.0
"""Times by which the rate must stay below the one at which the sweep diverges."""
FAR = 100.0
"""Times by which it may be below the rate that the sweep suggests."""


class Sweep(NamedTuple):
    """Rates of the sweep and the smoothed loss at each."""

    rates: list[float]
    losses: list[float]
    diverged: float
    """The rate at which the loss ran away; infinite where it never did."""

    def suggested(self, period: int) -> float:
        """Where the loss fell fastest, per factor of the rate; NaN where it never fell.

        The same batch comes after `period` steps: compared is what lies so far apart, so that easy and hard batches in
        turn are no fall.
        """
        apart = period * math.ceil(APART / period)
        pairs = zip(self.losses, self.losses[apart:], strict=False)
        falls = [before - after for before, after in pairs]
        steepest = max(range(len(falls)), key=falls.__getitem__, default=-1)
        if steepest < 0 or falls[steepest] <= 0:
            return math.nan
        return self.rates[steepest + apart // 2]


def learning_rate(subject: Subject) -> Iterator[Checked]:
    """The given rate is well below the one at which a sweep diverges, and near the one at which it falls fastest."""
    optimizer = subject.copied().optimizer
    kind, rate = type(optimizer).__name__, float(optimizer.param_groups[0]["lr"])
    if kind not in HIGHEST or not rate > 0:
        yield skipped("lr-range", f"not known what a learning rate of {rate:g} means to {kind}")
        return
    sweep = _sweep(subject, HIGHEST[kind])
    if len(sweep.rates) < STEPS // 4 and not math.isfinite(sweep.diverged):
        yield skipped("lr-range", f"only {len(sweep.rates)} steps in {SECONDS:g} s")
        return
    suggested = sweep.suggested(len(subject.batches))
    said = f"falls fastest at {suggested:.1g}"
    if math.isfinite(sweep.diverged):
        said += f", runs away at {sweep.diverged:.1g}"
    if rate > sweep.diverged / NEAR:
        yield failed(
            "lr-range",
            "warning",
            f"the learning rate is {rate:.3g}; in a sweep the loss {said}",
            f"a rate below {sweep.diverged / NEAR:.1g}",
            f"Lower it to about {sweep.diverged / (3 * NEAR):.1g}, or warm it up: a warm-up bears higher rates than a "
            "sweep shows.",
        )
    elif rate * FAR < suggested:
        yield failed(
            "lr-range",
            "warning",
            f"the learning rate is {rate:.3g}; in a sweep the loss {said}",
            f"a rate of {suggested / FAR:.1g} and more",
            f"Try {suggested / 10:.1g}. Right as it is for fine-tuning.",
        )
    else:
        yield passed("lr-range", f"{rate:.3g} is in range: in a sweep the loss {said}")


def _sweep(subject: Subject, highest: float) -> Sweep:
    """Steps over the batches there are, each at a rate that is a little higher."""
    trained = subject.copied()
    groups = trained.optimizer.param_groups
    shares = [group["lr"] / groups[0]["lr"] for group in groups]
    rates: list[float] = []
    losses: list[float] = []
    smooth, weight, end = 0.0, 0.0, perf_counter() + SECONDS
    for step in range(STEPS):
        rate = LOWEST * (highest / LOWEST) ** (step / (STEPS - 1))
        for group, share in zip(groups, shares, strict=True):
            group["lr"] = rate * share
        loss = subject.step(trained, subject.batches[step % len(subject.batches)])
        if not math.isfinite(loss):
            return Sweep(rates, losses, rate)
        smooth = SMOOTH * smooth + (1 - SMOOTH) * loss
        weight = SMOOTH * weight + (1 - SMOOTH)
        rates.append(rate)
        losses.append(smooth / weight)
        best, first = min(losses), losses[0]
        given_back = losses[-1] - best > max(0.5 * (first - best), 0.1 * abs(first))
        if best > 0 and losses[-1] > DIVERGED * best and given_back:
            return Sweep(rates, losses, rate)
        if perf_counter() > end:
            break
    return Sweep(rates, losses, math.inf)
