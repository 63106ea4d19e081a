"""The model's outputs: each sample for itself, the same twice, neither growing nor fading through the depth."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trainvitals.hooks.checks.subject import Subject, part, samples_of
from trainvitals.hooks.checks.verdicts import failed, passed, skipped
from trainvitals.hooks.registry import tensors_in
from trainvitals.hooks.wire.observed import Checked

SAME = 1e-4
"""Relative difference that rounding may make of another batch size."""
AGAIN = 1e-5
"""The same of a second run: kernels of accelerators add in any order."""
SLOPE = 0.15
"""Decades a layer that are a trend."""
SPAN = 2.0


def evaluation(subject: Subject) -> Iterator[Checked]:
    """In evaluation mode two passes agree, and a sample's output does not depend on the other samples."""
    model = subject.copied().model.eval()
    batch = subject.batches[0]
    count = samples_of(batch)
    with torch.no_grad():
        whole, again = (_first(subject.output(model, batch)) for _ in range(2))
        if whole is None or again is None:
            yield skipped("eval-deterministic", "the output holds no tensor")
            return
        gap = _apart(whole, again)
        yield (
            failed(
                "eval-deterministic",
                "warning",
                f"two passes differ by {gap:.2g} of the output's size",
                "equal outputs in evaluation mode",
                "Dropout or sampling that does not follow model.eval(): use nn.Dropout, or pass self.training.",
            )
            if gap > AGAIN
            else passed("eval-deterministic", "two passes agree")
        )
        if count < 2 or not whole.dim() or len(whole) != count:
            yield skipped("batch-independence", "needs an output for each of several samples")
            return
        half = _first(subject.output(model, part(batch, slice(0, count // 2))))
        gap = _apart(whole[: count // 2], half) if half is not None else 0.0
    yield (
        failed(
            "batch-independence",
            "critical",
            f"outputs differ by {gap:.2g} of their size when other samples are left out",
            "each sample's output depends on that sample alone",
            "Look for view() or reshape() where transpose() is meant, a softmax or mean over dimension 0, attention "
            "across the batch. Meant in contrastive models.",
        )
        if gap > max(SAME, 10 * _apart(whole, again))
        else passed("batch-independence", "each sample for itself")
    )


def depth(subject: Subject) -> Iterator[Checked]:
    """Sizes of the outputs of layers of one kind, from the first to the last (`activation-scale-depth`)."""
    model = subject.copied().model
    sizes: dict[str, list[tuple[str, float]]] = {}
    handles = [
        module.register_forward_hook(_measure(sizes.setdefault(type(module).__name__, []), name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    ]
    with torch.no_grad():
        subject.output(model, subject.batches[0])
    for handle in handles:
        handle.remove()
    series = max(sizes.values(), key=len, default=[])[:-1]  # the head's size is its own
    logs = [math.log10(size) for _, size in series if 0 < size < math.inf]
    if len(logs) < 4:
        yield skipped("init-scale", "needs 5 layers of one kind")
        return
    # Theil-Sen: a bottleneck or two do not move it.
    slopes = sorted(
        (logs[j] - logs[i]) / (j - i) for i in range(len(logs)) for j in range(i + 1, len(logs))
    )
    slope, span = slopes[len(slopes) // 2], max(logs) - min(logs)
    said = f"outputs from {10 ** logs[0]:.2g} to {10 ** logs[-1]:.2g} over {len(logs)} layers"
    yield (
        failed(
            "init-scale",
            "warning",
            f"{said}: {slope:+.2f} decades a layer",
            f"no trend beyond {SLOPE} decades a layer",
            "He initialisation for ReLU, norm layers, or residual branches scaled by 1/√depth.",
            [name for name, _ in series],
        )
        if abs(slope) > SLOPE and span >= SPAN
        else passed("init-scale", said)
    )


def _measure(into: list[tuple[str, float]], name: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = _first(output)
        if tensor is not None:
            into.append((name, float(tensor.detach().float().square().mean().sqrt())))

    return hook


def _first(output: Any) -> Tensor | None:
    return next(tensors_in(output, limit=1), None)


def _apart(one: Tensor, two: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    size = float(one.abs().amax())
    return float((one - two).abs().amax()) / size if size else 0.0
