"""Labels of a batch: classes and their order, or the range of real values."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks.observe.reading import Reading, Values
from trainvitals.hooks.wire.observed import Targets

MOST = 1 << 14
"""Labels that are counted of a batch."""
_CLASSES = 64
_ROWS = 4096


def ask(target: Tensor, reading: Reading, ignored: int | None = None) -> "Asked":
    """Ask for what `Targets` tells; `ignored`: the label that the loss leaves out."""
    if target.is_floating_point():
        return _real(target, reading)
    single = target.dim() == 1 or (target.dim() == 2 and target.shape[1] == 1)
    place = reading.ask(target.reshape(-1)[:MOST])
    return Asked(target.numel(), place, ignored=ignored, single=single)


def _real(target: Tensor, reading: Reading) -> "Asked":
    flat = target.reshape(-1)[:MOST].float()
    if not flat.numel():
        return Asked(0, None)
    parts = [*torch.var_mean(flat, correction=0), *flat.aminmax()]
    parts += [((flat < low) | (flat > 1)).float().mean() for low in (0, -1)]
    if target.dim() == 2 and target.shape[1] > 1:
        rows = target[:_ROWS].float()
        binary = ((rows == 0) | (rows == 1)).all()
        one_hot = (rows.sum(1) == 1).float().mean()
        parts.append(torch.where(binary, one_hot, torch.full_like(one_hot, -1)))
    return Asked(target.numel(), reading.ask(torch.stack(parts)), real=True)


class Asked:
    """Labels whose numbers were asked for."""

    def __init__(
        self,
        count: int,
        place: int | None,
        real: bool = False,
        ignored: int | None = None,
        single: bool = False,
    ) -> None:
        self._count, self._place, self._real = count, place, real
        self._ignored, self._single = ignored, single

    def made(self, values: Values) -> Targets:
        """The labels, when their values are here."""
        if self._place is None:
            return Targets(count=self._count, real=self._real)
        numbers = values[self._place]
        return self._of_real(numbers) if self._real else self._of_classes(np.array(numbers))

    def _of_real(self, numbers: Any) -> Targets:
        variance, mean, low, high, unit, tanh, *rows = map(float, numbers)
        return Targets(
            count=self._count,
            real=True,
            mean=mean,
            std=math.sqrt(max(variance, 0.0)),
            low=low,
            high=high,
            outside_unit=unit,
            outside_tanh=tanh,
            rows_one_hot=rows[0] if rows and rows[0] >= 0 else None,
        )

    def _of_classes(self, labels: np.ndarray) -> Targets:
        left_out = labels == self._ignored if self._ignored is not None else labels < 0
        kept = labels[~left_out]
        agreeing = int((labels[1:] == labels[:-1]).sum()) if self._single else 0
        return Targets(
            count=self._count,
            ignored=int(left_out.sum()),
            classes=counted(kept),
            agreeing=agreeing,
            pairs=max(len(labels) - 1, 0) if self._single else 0,
            negative=int((kept < 0).sum()),
            low=float(kept.min()) if len(kept) else None,
            high=float(kept.max()) if len(kept) else None,
        )


def counted(labels: np.ndarray) -> dict[str, int]:
    """How often each class from 0 on is among whole numbers of shape `(n,)`; the 64 most frequent."""
    classes, counts = _counted(labels[labels >= 0])
    most = np.argsort(-counts, kind="stable")[:_CLASSES]
    return {str(int(classes[i])): int(counts[i]) for i in sorted(most.tolist())}


def _counted(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes in order, and how often each is there."""
    if not len(labels) or labels.max() > 4096:
        return np.unique(labels, return_counts=True)
    counts = np.bincount(labels.astype(np.int64))
    classes = np.flatnonzero(counts)
    return classes, counts[classes]
