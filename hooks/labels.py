"""Running statistics of the labels a training has seen."""

import math

import numpy as np
import torch
from torch import Tensor

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.readout import Readout

EVERY_BATCH_UNTIL = 200
"""Batches that are all counted; later ones at sampled steps only."""
_MAX_ELEMENTS = 1 << 16


class Labels:
    """Class counts of whole-numbered labels, mean and variance of real-valued ones.

    Negative labels mean "ignore" and are left out. Labels on a device are copied and counted when they are here.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._real = 0
        self._mean = self._square = 0.0
        self._batches = 0
        self._pending: list[tuple[Readout, bool]] = []

    def wanted(self, sampled: bool) -> bool:
        """Whether the next batch is counted."""
        return sampled or self._batches < EVERY_BATCH_UNTIL

    def see(self, target: Tensor) -> None:
        """Count one batch, at most 65,536 labels of it."""
        flat = target.detach().reshape(-1)[:_MAX_ELEMENTS]
        if flat.numel() == 0 or flat.is_complex():
            return
        self._batches += 1
        real = flat.is_floating_point()
        if flat.device.type == "cpu":
            self._count(as_numpy(flat.to(torch.float64 if real else torch.int64)), real)
        else:
            self._pending.append((Readout([flat]), real))

    def scalars(self) -> dict[str, float]:
        """The `tv/label_...` scalars so far; empty before the first label."""
        while self._pending and self._pending[0][0].ready():
            readout, real = self._pending.pop(0)
            self._count(np.array(readout.values()[0]), real)
        if self._counts:
            total = sum(self._counts.values())
            shares = [count / total for count in self._counts.values()]
            return {
                "tv/label_entropy": -sum(share * math.log(share) for share in shares) + 0.0,
                "tv/label_classes": float(len(self._counts)),
                "tv/label_count": float(total),
            }
        if self._real:
            return {
                "tv/label_variance": self._square / self._real,
                "tv/label_count": float(self._real),
            }
        return {}

    def _count(self, values: np.ndarray, real: bool) -> None:
        if not real:
            classes, counts = np.unique(values[values >= 0], return_counts=True)
            for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
                self._counts[int(label)] = self._counts.get(int(label), 0) + count
            return
        finite = values[np.isfinite(values)]
        if not finite.size:
            return
        # Chan's update of a running sum of squares: exact for labels far from zero
        mean, count = float(finite.mean()), finite.size
        delta, total = mean - self._mean, self._real + count
        self._square += float(((finite - mean) ** 2).sum())
        self._square += delta * delta * self._real * count / total
        self._mean += delta * count / total
        self._real = total
