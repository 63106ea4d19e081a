"""Runs of any size that look like a training: what the benchmark's pages show."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainvitals.hooks.wire.codec import pack_floats
from trainvitals.hooks.wire.columns import ACTIVATION, MISSING_BITS, PARAMETER
from trainvitals.hooks.wire.records import (
    Batch,
    End,
    Event,
    Layout,
    Record,
    Row,
    Sample,
    Start,
    Step,
)

PARTS = ("attn.qkv", "attn.out", "norm", "mlp.fc1", "mlp.fc2")
"""Layers of one block."""
BATCH = 100
"""Records sent at a time."""
DRAWN = 6
"""Distinct steps of noise, used in turn, shifted and scaled: 2,000 layers anew for 10,000 steps take minutes."""


@dataclass(frozen=True)
class Shape:
    """How large a run is: layers, steps, and every how many steps the layers' statistics are taken."""

    layers: int
    steps: int
    every: int = 1

    @property
    def label(self) -> str:
        """As tables name it."""
        return f"{self.layers:,} layers x {self.steps:,} steps"

    @property
    def id(self) -> str:
        """Id of the run."""
        return f"bench-{self.layers}-{self.steps}"

    @property
    def spike(self) -> int:
        """A sampled step at which one layer's gradient and update jump, and no other step's do."""
        return self.steps // 3 // self.every * self.every

    @property
    def broken(self) -> int:
        """A sampled step at which one layer's gradient is NaN."""
        return self.steps * 2 // 3 // self.every * self.every


def names(shape: Shape) -> list[str]:
    """Names of the layers, in forward order."""
    return [f"blocks.{n // len(PARTS)}.{PARTS[n % len(PARTS)]}" for n in range(shape.layers)]


class Stream:
    """The records of one run, a batch at a time."""

    def __init__(self, shape: Shape, run: str = "", time: float = 1.7e9) -> None:
        self.shape, self.run, self.time = shape, run or shape.id, time
        self.seq = 0
        self._random = np.random.default_rng(3)
        self._activations = [self._noise(len(ACTIVATION)) for _ in range(DRAWN)]
        self._parameters = [self._noise(len(PARAMETER)) for _ in range(DRAWN)]

    def begin(self) -> Batch:
        """The start of the run and its layouts."""
        made = names(self.shape)
        rows = [Row(name=name, layer=name, type="Linear", shape=(64, 256)) for name in made]
        weights = [
            Row(name=f"{name}.weight", layer=name, type="Linear", shape=(256, 256)) for name in made
        ]
        columns = [column.key for column in ACTIVATION]
        held = [column.key for column in PARAMETER]
        about = {"project": "bench", "name": self.shape.label, "config": {"lr": 1e-3}}
        start = Start(seq=0, time=self.time, **about)
        layouts = [
            Layout(
                seq=1,
                time=self.time,
                step=0,
                group=0,
                kind="activation",
                rows=rows,
                columns=columns,
            ),
            Layout(
                seq=2, time=self.time, step=0, group=1, kind="parameter", rows=weights, columns=held
            ),
        ]
        return self._batch([start, *layouts])

    def steps(self, first: int, stop: int) -> Batch:
        """The records of the steps from `first` to before `stop`."""
        records: list[Record] = []
        for step in range(first, stop):
            samples = self._samples(step) if step % self.shape.every == 0 else []
            number = self.seq + len(records)
            records.append(
                Step(
                    seq=number,
                    time=self.time + step,
                    step=step,
                    scalars=self._scalars(step),
                    samples=samples,
                )
            )
            if step == self.shape.broken:
                records.append(
                    Event(
                        seq=number + 1,
                        time=self.time + step,
                        step=step,
                        kind="nonfinite",
                        layer=names(self.shape)[1],
                        data={"direction": "backward", "layer": names(self.shape)[1]},
                    )
                )
        return self._batch(records)

    def all(self) -> Iterator[Batch]:
        """Every batch of a finished run."""
        yield self.begin()
        for first in range(0, self.shape.steps, BATCH):
            yield self.steps(first, min(first + BATCH, self.shape.steps))
        end = End(
            seq=self.seq,
            time=self.time + self.shape.steps,
            step=self.shape.steps - 1,
            status="finished",
        )
        yield self._batch([end])

    def _batch(self, records: list[Record]) -> Batch:
        first = self.seq
        self.seq += len(records)
        return Batch(version=1, run=self.run, attempt="a1", rank=0, first=first, records=records)

    def _noise(self, columns: int) -> npt.NDArray[np.float32]:
        return self._random.lognormal(0, 0.2, (self.shape.layers, columns)).astype(np.float32)

    def _scalars(self, step: int) -> dict[str, float]:
        noise = self._random.lognormal(0, 0.15, 3)
        scalars = {
            "train/loss": float(2.3 * (1 + step / 50) ** -0.5 * noise[0]),
            "tv/grad_norm": float(0.8 * noise[1]) * (40 if step == self.shape.spike else 1),
            "tv/step_time": float(0.03 * noise[2]),
            "tv/lr/0": 1e-3 * min(1.0, (step + 1) / 100),
        }
        if step == self.shape.spike:
            scalars["train/loss"] *= 30
        if step == self.shape.broken:
            scalars["train/loss"] = float("nan")
        if step % 50 == 49:
            scalars["val/loss"] = 2.3 * (1 + step / 40) ** -0.45
        return scalars

    def _samples(self, step: int) -> list[Sample]:
        drift = np.float32(self._random.lognormal(0, 0.05))
        activation = np.roll(self._activations[step % DRAWN], step, axis=0) * drift
        activation[:, _place(ACTIVATION, "zero_fraction")] *= 0.4
        for key, value in (
            ("nonfinite", 0.0),
            ("dead_fraction", 0.01),
            ("saturated_fraction", 0.0),
        ):
            activation[:, _place(ACTIVATION, key)] = value
        activation[:, _place(ACTIVATION, "dead_fraction")] = _missing()
        parameter = np.roll(self._parameters[step % DRAWN], step, axis=0) * drift
        parameter[:, _place(PARAMETER, "update_ratio")] *= 1e-3
        parameter[:, _place(PARAMETER, "grad_rms")] *= 5e-3
        for key in ("weight_nonfinite", "grad_nonfinite", "unchanged", "unchanged_fraction"):
            parameter[:, _place(PARAMETER, key)] = 0.0
        if step == self.shape.spike:
            parameter[0, _place(PARAMETER, "update_ratio")] = 5.0
            parameter[0, _place(PARAMETER, "grad_rms")] = 50.0
        if step == self.shape.broken:
            parameter[1, _place(PARAMETER, "grad_rms")] = np.nan
            parameter[1, _place(PARAMETER, "grad_nonfinite")] = 3.0
        return [
            Sample(group=0, values=pack_floats(activation)),
            Sample(group=1, values=pack_floats(parameter)),
        ]


def _place(columns: tuple, key: str) -> int:  # type: ignore[type-arg]
    return next(index for index, column in enumerate(columns) if column.key == key)


def _missing() -> np.floating:  # type: ignore[type-arg]
    return np.array([MISSING_BITS], "<u4").view("<f4")[0]
