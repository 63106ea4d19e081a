"""Statistics of sharded parameters: each rank sums up its shards, and one reduction adds the sums of all ranks."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from trainvitals.hooks import histogram, readout
from trainvitals.hooks.adam import AdamUpdate
from trainvitals.hooks.draft import Draft
from trainvitals.hooks.ensemble import AgreedPace, Ensemble, Floats, Plan, counts_here
from trainvitals.hooks.gathered import COLUMN
from trainvitals.hooks.memory import Memory
from trainvitals.hooks.pace import HISTOGRAM_EVERY
from trainvitals.hooks.parameterstats import KEPT, KEPT_IN_ALL
from trainvitals.hooks.plain import array, flat, plain, stride, values
from trainvitals.hooks.problems import Problems
from trainvitals.hooks.registry import Parameter, Registry, Rows
from trainvitals.hooks.stats import moments, sum_of_squares
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.records import HistogramKind

_HEAD = 5
"""Numbers before the parameters': whether a rank has failed, the plan (3), the sum of squares of all gradients."""
_MOMENTS = 6
"""Sums of a weight or a gradient: elements, n·mean, n·mean², n·variance, non-finite elements, shards with NaN."""
_UPDATE = 2 * _MOMENTS
_SUMS = _UPDATE + 6
"""After the two: squares of change and of weight where it stepped, changed elements; elements under Adam, n·factor²,
n·share ruled by eps."""
_KINDS: tuple[HistogramKind, HistogramKind] = ("weight", "gradient")


class _Kept(NamedTuple):
    place: int
    tensor: Tensor
    step: int
    before: np.ndarray


class ShardSums:
    """What this rank has to add to one step that all ranks look at."""

    def __init__(self, ensemble: Ensemble, memory: Memory, sampled: bool, histograms: bool) -> None:
        """`memory`: kept between samples."""
        self._ensemble = ensemble
        self._memory = memory
        self._sampled = sampled
        self._places = {id(p.tensor): i for i, p in enumerate(ensemble.parameters)}
        rows = len(ensemble.parameters) if sampled else 0
        self._sums = np.zeros((rows, _SUMS))
        self._largest = np.zeros((rows, 2))
        self._counts = np.zeros((rows if histograms else 0, 2, BINS))
        self._kept: dict[int, list[_Kept]] = {}
        self._squares: dict[int, float] = {}
        self.failed = False
        """Whether this rank's numbers are not to be trusted: then no rank's are recorded."""

    # Gathering

    def take_weights(self, optimizer: Optimizer, parameters: list[Parameter]) -> None:
        """Before the optimizer moves anything; once for each optimizer."""
        if not self._sampled or id(optimizer) in self._kept:
            return
        kept = self._kept[id(optimizer)] = []
        limit = max(1, min(KEPT, KEPT_IN_ALL // max(len(self._places), 1)))
        for parameter in parameters:
            index, weight = self._places.get(id(parameter.tensor)), _mine(parameter.tensor)
            if index is None or weight is None:
                continue
            self._take(index, 0, weight)
            step = stride(weight, limit)
            kept.append(_Kept(index, parameter.tensor, step, _part(weight, step).copy()))

    def take_gradients(self, optimizer: Optimizer, members: list[Parameter]) -> None:
        """As the optimizer gets them, before clipping; once for each optimizer."""
        if id(optimizer) in self._squares:
            return
        total = 0.0
        for parameter in members:
            gradient = parameter.tensor.grad
            part = None if gradient is None else _mine(gradient)
            if part is None:
                continue
            total += _squares(part)
            index = self._places.get(id(parameter.tensor))
            if index is not None and self._sampled:
                self._take(index, 1, part)
        self._squares[id(optimizer)] = total

    def _take(self, index: int, which: int, part: Tensor) -> None:
        """`which`: 0 for a weight, 1 for a gradient."""
        found = moments(part)
        mean, std = float(found.mean), float(found.std)
        count, bad, largest = part.numel(), float(found.nonfinite), float(found.absmax)
        sums = (
            count,
            count * mean,
            count * mean * mean,
            count * std * std,
            bad,
            largest != largest,
        )
        begin = which * _MOMENTS
        self._sums[index, begin : begin + _MOMENTS] += sums
        self._largest[index, which] = 0.0 if largest != largest else largest
        if len(self._counts):
            counts = histogram.here(histogram.count(part))
            weight = (count - bad) / max(counts.sum(), 1)  # of large shards only some are counted
            self._counts[index, which] = np.rint(counts * weight)

    def take_update(self, optimizer: Optimizer) -> None:
        """After the optimizer's step."""
        kept = self._kept.get(id(optimizer), [])
        adam = AdamUpdate(optimizer, self._memory).of([tensor for _, tensor, *_ in kept])
        for (index, tensor, step, before), factors in zip(kept, adam, strict=True):
            weight = _mine(tensor)
            now = None if weight is None else _part(weight, step)
            if weight is None or now is None or len(now) != len(before):
                continue  # given other data in the meantime
            share = weight.numel() / len(before)
            bits = np.int32 if before.dtype == np.float32 else np.int64
            changed = share * np.count_nonzero(now.view(bits) != before.view(bits))
            self._sums[index, _UPDATE + 2] += changed
            if tensor.grad is None:
                continue  # not stepped
            with np.errstate(all="ignore"):
                moved = share * sum_of_squares(now - before)
            self._sums[index, _UPDATE : _UPDATE + 2] += (moved, share * sum_of_squares(before))
            factor, ruled = map(float, factors)
            if not math.isnan(factor):
                count = weight.numel()
                self._sums[index, _UPDATE + 3 :] += (count, count * factor**2, count * ruled)

    # Adding up

    def reduce(self, plan: Plan) -> "Reduced":
        """Meet the other ranks; `plan` counts on rank 0 only. Must be called whatever has failed before."""
        head = np.zeros(_HEAD)
        head[0] = self.failed
        if self._ensemble.rank == 0:
            head[1:4] = plan
        head[4] = sum(self._squares.values())
        parts = (head, self._sums, self._counts)
        sums = np.concatenate([part.reshape(-1) for part in parts])
        sums, largest = self._ensemble.reduce(sums, np.append(self._largest.reshape(-1), 0.0))
        ends = np.cumsum([part.size for part in parts])
        return Reduced(
            failed=bool(sums[0]),
            plan=Plan(int(sums[1]), int(sums[2]), bool(sums[3])),
            norm=math.sqrt(sums[4]) if sums[4] == sums[4] else math.nan,
            sums=sums[ends[0] : ends[1]].reshape(self._sums.shape),
            largest=largest[:-1].reshape(self._largest.shape),
            counts=sums[ends[1] :].reshape(self._counts.shape).astype(np.int64),
        )


class Reduced(NamedTuple):
    """What all ranks have together."""

    failed: bool
    plan: Plan
    norm: float
    """Of all gradients."""
    sums: Floats
    largest: Floats
    counts: np.ndarray
    """Shape `(parameters, 2, BINS)`; no parameters where there are no histograms."""

    def put(self, draft: Draft, parameters: list[Parameter], rows: Rows) -> None:
        """Write the statistics of all parameters into `draft`."""
        for index, parameter in enumerate(parameters[: len(self.sums)]):
            row = rows.find(parameter.name)
            if row is None:
                continue
            for which, prefix in enumerate(("weight", "grad")):
                sums = self.sums[index, which * _MOMENTS : (which + 1) * _MOMENTS]
                if sums[0] == 0:
                    continue
                sizes = _sizes(sums, self.largest[index, which])
                draft.put("parameter", COLUMN[f"{prefix}_rms"], row, sizes)
                if len(self.counts):
                    draft.count(_KINDS[which], row, self.counts[index, which].astype(np.int64))
            if self.sums[index, 0]:
                update = _update(self.sums[index, 0], self.sums[index, _UPDATE:])
                draft.put("parameter", COLUMN["update_ratio"], row, update)


def _sizes(sums: Floats, largest: float) -> tuple[float, float, float, float]:
    """RMS, std, largest size and non-finite elements."""
    count, total, of_means, within, bad, with_nan = sums.tolist()
    square = (within + of_means) / count
    variance = max((within + of_means - total * total / count) / count, 0.0)
    if square != square:
        square, variance = math.nan if with_nan else math.inf, math.nan
    return math.sqrt(square), math.sqrt(variance), math.nan if with_nan else float(largest), bad


def _update(count: float, sums: Floats) -> tuple[float, ...]:
    """Update ratio, unchanged, share of unchanged elements, Adam's update factor and share ruled by eps."""
    moved, size, changed, under_adam, factors, ruled = sums.tolist()
    ratio = math.sqrt(moved / size) if size and moved == moved else math.nan
    factor = math.sqrt(factors / under_adam) if under_adam else math.nan
    share = ruled / under_adam if under_adam else math.nan
    return ratio, float(changed == 0), 1.0 - changed / count, factor, share


def _mine(tensor: Tensor) -> Tensor | None:
    """The shard of this rank, if it is one to add up."""
    return plain(tensor) if counts_here(tensor) else None


def _squares(tensor: Tensor) -> float:
    known = values(tensor)
    if known is not None:
        return sum_of_squares(known)
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def _part(weight: Tensor, step: int) -> np.ndarray:
    part = flat(weight)[::step]
    return array(part if readout.on_host(part) else part.cpu())


class Failing:
    """Round what may fail, on this rank and so for all."""

    def __init__(self, fail: Callable[[], None]) -> None:
        self._fail = fail

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        if kind is not None and issubclass(kind, Exception):
            self._fail()


class Shards:
    """A sharded model's part of the life of a step: which steps all ranks look at, and what they find there."""

    def __init__(self, name: str, rows: Rows, problems: Problems) -> None:
        """`name`: of the run and its attempt, the same on all ranks; "" where nothing is sharded: then nothing is
        done."""
        self._name = name
        self._times = 0
        self._memory = Memory()
        self._rows = rows
        self._problems = problems
        self._ensemble: Ensemble | None = None
        self._sums: ShardSums | None = None
        self.failing = Failing(self.fail)
        self.pace = AgreedPace()

    def join(self, registry: Registry) -> None:
        """This rank watches from now on."""
        if not self._name:
            return
        self._times += 1
        wanted = registry.wanted_parameters
        parameters = [p for p in registry.parameters.values() if id(p.tensor) in wanted]
        self._ensemble = Ensemble(f"{self._name}/{self._times}", parameters)

    def leave(self) -> None:
        """It does so no more."""
        if self._ensemble is not None:
            self._ensemble.leave()

    @property
    def watching(self) -> bool:
        """Whether this rank watches a sharded model."""
        return self._ensemble is not None

    def begin(self, sampled: bool) -> ShardSums | None:
        """What to gather in a step that begins and is looked at."""
        if self._ensemble is None:
            return None
        self._sums = ShardSums(
            self._ensemble, self._memory, sampled, sampled and self.pace.agreed.histograms
        )
        return self._sums

    def fail(self) -> None:
        """Something went wrong in this step: no rank's numbers are to be recorded."""
        if self._sums is not None:
            self._sums.failed = True

    def meet(self, draft: Draft, samples: int) -> None:
        """The step is over, and this rank has planned the next ones: add up and agree. `samples`: so far.

        Never raises.
        """
        ensemble, sums, self._sums = self._ensemble, self._sums, None
        if ensemble is None or sums is None:
            return
        try:
            if ensemble.meets():
                self._add_up(ensemble, sums, draft, samples)
                return
        except Exception as error:
            self._problems.caught("adding up what all ranks have", error)
        self.pace.go_alone(draft.step, ensemble.rank == 0)
        self._problems.note(
            "the model is sharded over ranks of which not all watch it in the same way: no statistics of its "
            "weights and gradients. Call tv.watch with the same arguments on every rank."
        )

    def _add_up(self, ensemble: Ensemble, sums: ShardSums, draft: Draft, samples: int) -> None:
        sample, glance = self.pace.wanted
        histograms = self.pace.is_fixed or samples % HISTOGRAM_EVERY == 0
        following = draft.step + 1
        found = sums.reduce(Plan(max(sample, following), max(glance, following), histograms))
        self.pace.agreed = found.plan
        if found.failed:
            self._problems.note(
                "a rank could not take its statistics; those of that step are left out."
            )
            return
        draft.scalars["tv/grad_norm"] = found.norm
        self.pace.saw_norm(found.norm)
        if ensemble.rank == 0:
            found.put(draft, ensemble.parameters, self._rows)
