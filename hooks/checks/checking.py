"""Runs all checks, one after the other, and keeps the random state."""

import sys
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import msgspec
import torch
from torch import nn
from torch.optim import Optimizer

from trainvitals.hooks.checks import causal, fitting, loading, outputs, sweep, wiring
from trainvitals.hooks.checks.report import PreflightError, Report
from trainvitals.hooks.checks.subject import Subject, random_state_kept
from trainvitals.hooks.checks.verdicts import failed, skipped
from trainvitals.hooks.wire.observed import Checked

Family = Callable[[Subject], Iterator[Checked]]

FAMILIES: tuple[tuple[str, Family], ...] = (
    ("loader", loading.scan),
    ("device", wiring.device),
    ("structure", wiring.structure),
    ("loss", wiring.loss_call),
    ("gradients", wiring.gradients),
    ("evaluation", outputs.evaluation),
    ("causal-leak", causal.causal_leak),
    ("init-scale", outputs.depth),
    ("overfit-one-batch", fitting.overfit_one_batch),
    ("input-dependence", fitting.input_dependence),
    ("lr-range", sweep.learning_rate),
)
_LABELS = ("out of bounds", "n_classes", "out of range in self")
"""What PyTorch says of a label that is no class."""


def check(
    model: nn.Module,
    data: Any,
    loss: Callable[..., Any] | None,
    optimizer: Optimizer,
    *,
    progress: bool = True,
) -> Report:
    """All checks on copies; see `tv.preflight`. Raises PreflightError for what cannot be checked at all."""
    results: list[Checked] = []
    with random_state_kept():
        torch.manual_seed(0)
        subject = Subject(model, data, loss, optimizer)
        for index, (name, family) in enumerate(FAMILIES):
            _show(progress, index, name)
            results += _run(name, family, subject)
        _show(progress, len(FAMILIES), "")
    return Report(results)


def _run(name: str, family: Family, subject: Subject) -> list[Checked]:
    found: list[Checked] = []
    begin = perf_counter()
    checks = family(subject)
    while True:
        try:
            result = next(checks)
        except StopIteration:
            return found
        except PreflightError as error:
            return [*found, skipped(name, str(error))]
        except Exception as error:  # whatever the user's own code raises is what was to be found
            return [*found, _raised(name, error)]
        end = perf_counter()
        found.append(msgspec.structs.replace(result, seconds=end - begin))
        begin = end


def _raised(name: str, error: Exception) -> Checked:
    text = f"{type(error).__name__}: {error}"[:300]
    labels = any(words in text for words in _LABELS)
    return failed(
        "label-range" if labels else name,
        "critical",
        text,
        "labels 0 to C − 1 for C outputs"
        if labels
        else "a forward and a backward pass without an error",
        "Count the labels from 0, and give the model as many outputs as there are classes."
        if labels
        else "The training would end with this error.",
    )


def _show(progress: bool, done: int, name: str) -> None:
    if not progress or not sys.stderr.isatty():
        return
    bar = "#" * done + "." * (len(FAMILIES) - done)
    print(f"\r[{bar}] {name:20}", end="" if name else "\n", file=sys.stderr, flush=True)
