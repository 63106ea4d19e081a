"""A made-up training whose statistics wander and scatter as those of a real one, so that they hardly compress."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainvitals.hooks.wire import limits, scalars
from trainvitals.hooks.wire.bins import BINS, ZERO_BIN
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.records import (
    Batch,
    Histograms,
    Layout,
    Record,
    Row,
    Sample,
    Start,
    Step,
)

TIME = 1.7e9
CHUNK = 256
"""Steps that are made up at a time."""


@dataclass(frozen=True)
class Size:
    """How much of it."""

    layers: int
    statistics: int
    steps: int
    histogram_steps: int
    """Steps with histograms of every layer, evenly chosen."""

    @property
    def layer_steps(self) -> int:
        """Rows of statistics in all."""
        return self.layers * self.steps

    @property
    def histograms(self) -> int:
        """Histograms in all."""
        return self.layers * self.histogram_steps


def layer(number: int) -> str:
    """Name of a layer."""
    return f"blocks.{number}.mlp"


def statistic(number: int) -> str:
    """Name of a statistic."""
    return f"statistic{number}"


def values(size: Size, seed: int = 0) -> Iterator[npt.NDArray[np.float32]]:
    """Statistics of up to `CHUNK` steps at a time, shape (steps, layers, statistics).

    Each has a level of its own, wanders by 0.5 % a step and scatters by 2 to 30 %, as norms and deviations of real
    trainings do from step to step: about 21 of the 32 bits of a value are noise, which no store can leave out.
    """
    random = np.random.default_rng(seed)
    level = random.normal(size=(size.layers, size.statistics))
    scatter = random.uniform(0.02, 0.3, size=size.statistics).astype(np.float32)
    for first in range(0, size.steps, CHUNK):
        shape = (min(CHUNK, size.steps - first), *level.shape)
        noise = random.standard_normal(shape, np.float32) * scatter
        # The way within a chunk is straight: only its ends matter to what a chunk weighs.
        end = level + random.normal(scale=0.005 * np.sqrt(shape[0]), size=level.shape)
        way = np.linspace(level, end, shape[0], dtype=np.float32)
        level = end
        yield np.exp(way + noise)


def counts(size: Size, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Histograms of 100,000 normal values of each layer, each layer of its own width; shape (layers, BINS)."""
    offset = np.arange(BINS) - ZERO_BIN
    exponent = np.abs(offset) - 33.0  # of two: see `bins`
    width = -6.0 + 2.0 * np.sin(np.arange(size.layers))
    share = np.exp2(exponent - width[:, None]) * np.exp(-0.5 * 4.0 ** (exponent - width[:, None]))
    share[:, ZERO_BIN] = 0.0
    expected = 1e5 * share / share.sum(axis=1, keepdims=True)
    return random.poisson(expected)


def batches(size: Size, run: str, per_batch: int) -> Iterator[Batch]:
    """The run as it travels: samples and two scalars at every step."""
    random = np.random.default_rng(1)
    rows = [Row(name=layer(number), layer=layer(number)) for number in range(size.layers)]
    columns = [statistic(number) for number in range(size.statistics)]
    held: list[Record] = [
        Start(seq=0, time=TIME, project="bench", name=run),
        Layout(seq=1, time=TIME, step=0, group=0, kind="activation", rows=rows, columns=columns),
    ]
    every = max(1, size.steps // max(size.histogram_steps, 1))
    first = step = 0
    for chunk in values(size):
        for sample in chunk:
            histograms = []
            if size.histogram_steps and step % every == 0:
                packed = pack_counts(counts(size, random))
                histograms = [Histograms(group=0, kind="activation", counts=packed)]
            held.append(
                Step(
                    seq=first + len(held),
                    time=TIME + step,
                    step=step,
                    scalars={
                        "train/loss": float(sample[0, 0]),
                        "tv/grad_norm": float(sample[1, 0]),
                    },
                    samples=[Sample(group=0, values=sample.tobytes())],
                    histograms=histograms,
                )
            )
            step += 1
            if len(held) >= per_batch:
                yield _batch(run, first, held)
                first, held = first + len(held), []
    if held:
        yield _batch(run, first, held)


def scalar_batches(run: str, steps: int, seed: int) -> Iterator[Batch]:
    """A run that logs its loss at every step, and no statistics."""
    random = np.random.default_rng(seed)
    losses = np.exp(random.normal(scale=0.1, size=steps) - np.arange(steps) / (steps + 1))
    held: list[Record] = [Start(seq=0, time=TIME + seed, project="bench", name=run)]
    for first in range(0, steps, limits.MAX_SCALAR_ROWS):
        rows = [
            (first + index, ("train/loss",), [value])
            for index, value in enumerate(losses[first : first + limits.MAX_SCALAR_ROWS].tolist())
        ]
        held.append(scalars.pack(rows, TIME + seed, len(held)))
    yield _batch(run, 0, held)


def _batch(run: str, first: int, records: list[Record]) -> Batch:
    return Batch(version=2, run=run, attempt="a", rank=0, first=first, records=records)
