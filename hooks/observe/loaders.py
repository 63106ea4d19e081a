"""How DataLoaders are used: passes that begin anew at every step, the same order again, shared samples."""

import weakref
from collections.abc import Callable
from time import perf_counter
from typing import Any
from zlib import crc32

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler, Subset, TensorDataset

from trainvitals.hooks.asnumpy import as_numpy
from trainvitals.hooks.nonfinite import fingerprint
from trainvitals.hooks.wire.observed import LoaderSeen

_ROWS_BYTES = 8 << 20
"""Data sets up to this size are compared sample by sample, once."""
_INDICES = 200_000
_LONG = 100
"""Batches from which on a pass is long enough to compare the losses of one with those of the next."""
_PROVEN = 20
"""Restarts after which nothing more is learnt from the next one."""


class Loaders:
    """Told of every batch that a DataLoader of this process gives; a pass is one iterator."""

    def __init__(self, step: Callable[[], int], spent: Callable[[float], None]) -> None:
        """`step`: the index of the step under way; `spent` gets the seconds that a new pass has cost."""
        self._step = step
        self._spent = spent
        self._current: Callable[[], Any] = lambda: None
        self._count = 0
        self._began = self._pass = -1
        self._is_training = False
        self._batches = 0
        self._sequential = self._in_memory = False
        self._workers = -1
        self._restarts = self._same = 0
        self._digest = self._digest_before = ""
        self._dataset: Callable[[], Any] = lambda: None
        self._compared: set[tuple[int, int]] = set()
        self._shared: float | None = None
        self._told: LoaderSeen | None = None

    def see(self, iterator: Any, batch: Any) -> None:
        """A batch was given."""
        if iterator is self._current():
            self._count += 1
            if not self._is_training:
                self._go_on(iterator)
            return
        begin = perf_counter()
        if torch.is_grad_enabled():
            self._first(iterator, batch)
        else:
            self._compare(iterator._dataset)
        self._spent(perf_counter() - begin)

    def _first(self, iterator: Any, batch: Any) -> None:
        step = self._step()
        again = (
            self._count == 1 and step == self._began + 1 and self._dataset() is iterator._dataset
        )
        self._restarts = self._restarts + 1 if again else 0
        self._current, self._count, self._began = weakref.ref(iterator), 1, step
        self._is_training = False
        if self._restarts:
            self._learn(iterator)
        if self._restarts <= _PROVEN:
            self._digest = "-".join(str(entry.get("crc32", "")) for entry in fingerprint(batch))

    def _go_on(self, iterator: Any) -> None:
        """The pass goes on; with a step since its first batch it is the training's."""
        if self._step() == self._began:
            return
        self._is_training = True
        self._learn(iterator)
        same = self._digest == self._digest_before != "" and self._batches >= 4
        self._same = self._same + 1 if same else 0
        self._digest_before = self._digest
        self._pass = self._began if self._batches >= _LONG else -1

    def _learn(self, iterator: Any) -> None:
        sampler = iterator._index_sampler
        try:
            self._batches = len(sampler)
        except TypeError:  # of a stream nobody knows
            self._batches = 0
        self._sequential = isinstance(getattr(sampler, "sampler", None), SequentialSampler)
        self._workers = iterator._num_workers
        self._in_memory = isinstance(whole(iterator._dataset), TensorDataset)
        try:
            self._dataset = weakref.ref(iterator._dataset)
        except TypeError:  # a list
            self._dataset = lambda: None

    def _compare(self, other: Any) -> None:
        """An evaluation has begun on `other`: how much of it is trained on, as far as that can be known."""
        own = self._dataset()
        if own is None or (id(own), id(other)) in self._compared or len(self._compared) > 16:
            return
        self._compared.add((id(own), id(other)))
        share = shared(own, other)
        if share is not None:  # an evaluation of its own on the training's samples is no leak
            self._shared = share if self._shared is None else min(self._shared, share)

    @property
    def due(self) -> bool:
        """Whether there is something that is worth telling at once."""
        told = self._told or LoaderSeen()
        return self._pass != told.began or (self._same >= 2 and told.same_order < 2)

    def told(self) -> LoaderSeen | None:
        """What is known now; None when that is what was told before."""
        seen = LoaderSeen(
            batches=self._batches,
            restarts=self._restarts,
            sequential=self._sequential,
            same_order=self._same,
            began=self._pass,
            shared=self._shared,
            workers=self._workers,
            in_memory=self._in_memory,
        )
        if seen == self._told or seen == LoaderSeen():
            return None
        self._told = seen
        return seen


def whole(dataset: Any) -> Any:
    """The data set that this is a part of."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def shared(training: Any, other: Any) -> float | None:
    """Share of the samples of `other` that are in `training`, 0 to 1; None where it is not known.

    The very same data set, or another one over the same tensors, is no mistake but a look at the training's own
    accuracy: None, too.
    """
    if training is other:
        return None
    if isinstance(training, Subset) and isinstance(other, Subset):
        if training.dataset is other.dataset:
            return _share(training.indices, other.indices)
        return None
    if isinstance(training, TensorDataset) and isinstance(other, TensorDataset):
        one, two = training.tensors[0], other.tensors[0]
        same = one.data_ptr() == two.data_ptr() and one.shape == two.shape
        if one.shape[1:] == two.shape[1:] and one.dtype == two.dtype and not same:
            one_rows, two_rows = _rows(one), _rows(two)
            if one_rows is not None and two_rows is not None:
                return _share(one_rows, two_rows)
    return None


def _share(training: Any, other: Any) -> float | None:
    if not len(other) or max(len(training), len(other)) > _INDICES:
        return None
    known = set(training)
    return sum(1 for sample in other if sample in known) / len(other)


def _rows(tensor: Tensor) -> list[int] | None:
    """A checksum of each sample; None where that takes long, or says little: samples of a few numbers repeat."""
    if (
        not tensor.is_cpu
        or tensor.dim() < 2
        or tensor.nbytes > _ROWS_BYTES
        or tensor[0].numel() < 8
    ):
        return None
    rows = tensor.detach().contiguous().reshape(len(tensor), -1).view(torch.uint8)
    return [crc32(row) for row in as_numpy(rows)]
