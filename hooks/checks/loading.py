"""The batches of a loader: finite, of a sane size, with labels in range and in random order, and quick to get."""

import math
from collections import Counter
from collections.abc import Iterator
from time import perf_counter

import torch
from torch import Tensor

from trainvitals.hooks.checks.subject import Batch, Subject, inputs_of, target_of
from trainvitals.hooks.checks.verdicts import failed, passed, skipped
from trainvitals.hooks.nonfinite import fingerprint
from trainvitals.hooks.registry import tensors_in
from trainvitals.hooks.wire.observed import Checked

BATCHES = 50
SECONDS = 10.0
Z = 6.0
"""Standard deviations of neighbours' agreement; see the rule `unshuffled-data`."""


def scan(subject: Subject) -> Iterator[Checked]:
    """Up to 50 batches or 10 seconds of the loader, else the one batch that was given."""
    batches, seconds = _taken(subject)
    yield _finite(batches)
    yield _size(batches)
    yield _again(batches)
    yield from _labels(batches)
    if subject.loader is not None:
        each = seconds / len(batches)
        yield passed("loader-time", f"{1000 * each:.3g} ms a batch")


def _taken(subject: Subject) -> tuple[list[Batch], float]:
    if subject.loader is None:
        return subject.batches, 0.0
    begin = perf_counter()
    taken = []
    for batch in subject.loader:
        taken.append(batch)
        if len(taken) == BATCHES or perf_counter() - begin > SECONDS:
            break
    return taken, perf_counter() - begin


def _floats(batch: Batch) -> list[Tensor]:
    return list(tensors_in(inputs_of(batch)))


def _finite(batches: list[Batch]) -> Checked:
    bad = [
        index
        for index, batch in enumerate(batches)
        if not all(
            bool(torch.isfinite(t).all()) for t in tensors_in([inputs_of(batch), target_of(batch)])
        )
    ]
    if not bad:
        return passed("data-finite", f"{len(batches)} batches without NaN or infinity")
    return failed(
        "data-finite",
        "critical",
        f"NaN or infinity in {len(bad)} of {len(batches)} batches, first in batch {bad[0]}",
        "finite inputs and targets",
        "Drop or impute missing values; look for a zero standard deviation in the preprocessing.",
    )


def _size(batches: list[Batch]) -> Checked:
    tensors = [tensor.float() for batch in batches for tensor in _floats(batch)[:1]]
    if not tensors:
        return skipped("input-scale", "no floating-point inputs")
    squares = sum(float(t.square().sum()) for t in tensors)
    rms = math.sqrt(squares / sum(t.numel() for t in tensors))
    constant = sum(bool((t == t.reshape(-1)[0]).all()) for t in tensors if t.numel() > 1)
    if constant:
        return failed(
            "input-scale",
            "critical",
            f"{constant} of {len(tensors)} batches hold a single value",
            "inputs that differ",
            "Look at what the loader gives: a wrong path, a failed decoding, a division of whole numbers.",
        )
    if not 0.01 <= rms <= 10:
        return failed(
            "input-scale",
            "warning",
            f"root mean square {rms:.3g}",
            "0.01 to 10",
            "Standardise the inputs, or divide images by 255.",
        )
    return passed("input-scale", f"root mean square {rms:.3g}")


def _again(batches: list[Batch]) -> Checked:
    if len(batches) < 4:
        return skipped("repeated-batch", "needs a loader with 4 batches")
    sums = [
        "-".join(str(entry.get("crc32", i)) for entry in fingerprint(b))
        for i, b in enumerate(batches)
    ]
    most = max(Counter(sums).values())
    if most >= 3:
        return failed(
            "repeated-batch",
            "critical",
            f"the same batch {most} times among {len(batches)}",
            "other samples in every batch",
            "Look at the sampler and at a data set that ignores its index.",
        )
    return passed("repeated-batch", f"{len(set(sums))} different batches")


def _labels(batches: list[Batch]) -> Iterator[Checked]:
    targets = [target_of(batch) for batch in batches]
    whole = [
        t.reshape(-1)
        for t in targets
        if isinstance(t, Tensor) and not t.is_floating_point() and t.dim() == 1
    ]
    if not whole:
        yield skipped("label-order", "no whole-numbered label a sample")
        return
    labels = torch.cat(whole)
    counts = torch.unique(labels, return_counts=True)[1]
    shares = counts / len(labels)
    chance = float(shares.square().sum())
    pairs = sum(len(t) - 1 for t in whole)
    agreeing = sum(int((t[1:] == t[:-1]).sum()) for t in whole)
    spread = math.sqrt(pairs * chance * (1 - chance))
    z = (agreeing - pairs * chance) / spread if spread else 0.0
    if pairs >= 50 and z > Z:
        yield failed(
            "label-order",
            "warning",
            f"{100 * agreeing / pairs:.0f} % of neighbours have the same label; {100 * chance:.0f} % by chance",
            "labels in random order",
            "DataLoader(shuffle=True).",
        )
    else:
        yield passed("label-order", f"{len(counts)} classes in random order")
    if len(counts) == 1:
        yield failed(
            "label-classes",
            "warning",
            f"every label is {int(labels[0])}",
            "two classes or more",
            "Check the labels, and the order of the samples.",
        )
    else:
        yield passed("label-classes", f"{int(counts.min())} to {int(counts.max())} labels a class")
