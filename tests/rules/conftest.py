"""Runs written down by hand, so that each test says exactly what the rules see."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pytest
from torch import nn

from trainvitals.app.rules.engine import Engine
from trainvitals.app.rules.finding import Finding
from trainvitals.hooks.deadunits import DeadUnits
from trainvitals.hooks.wire.codec import pack_floats
from trainvitals.hooks.wire.columns import ACTIVATION, PARAMETER
from trainvitals.hooks.wire.records import End, Event, Layout, Record, Row, Sample, Start, Step

PARAMETER_KEYS = [column.key for column in PARAMETER]
ACTIVATION_KEYS = [column.key for column in ACTIVATION]

# A layer in good health, as small nets show it: W ~ 1/sqrt(3 * 64), gradients well below, updates
# of a hundredth, half of the ReLU outputs zero.
HEALTHY_PARAMETER = {
    "weight_rms": 0.072,
    "weight_std": 0.072,
    "weight_absmax": 0.125,
    "weight_nonfinite": 0.0,
    "grad_rms": 0.005,
    "grad_std": 0.005,
    "grad_absmax": 0.03,
    "grad_nonfinite": 0.0,
    "update_ratio": 0.01,
    "unchanged": 0.0,
    "unchanged_fraction": 0.0,
    "adam_update_factor": 0.3,
    "adam_eps_fraction": 0.0,
}
HEALTHY_RELU = {
    "mean": 0.3,
    "std": 0.5,
    "rms": 0.58,
    "absmax": 3.0,
    "zero_fraction": 0.5,
    "nonfinite": 0.0,
    "dead_fraction": 0.0,
    "dead_positions": 20_000.0,
    "saturated_fraction": math.nan,
    "batch_variation": 0.8,
}


class Stream(NamedTuple):
    attempt: str = "a1"
    rank: int = 0


class Script:
    """One stream's records, and what the rules say to them."""

    def __init__(self, attempt: str = "a1", rank: int = 0) -> None:
        self.stream = Stream(attempt, rank)
        self.records: list[Record] = []
        self.add(Start, project="p", name="n", tags=[])
        self._parameters: list[str] = []
        self._activations: list[str] = []

    def add(self, record: type, /, **fields: object) -> None:
        self.records.append(record(seq=len(self.records), time=1.0, **fields))

    def parameters(self, rows: Iterable[Row], step: int = 0) -> "Script":
        rows = list(rows)
        self._parameters = [row.name for row in rows]
        self.add(Layout, step=step, group=1, kind="parameter", rows=rows, columns=PARAMETER_KEYS)
        return self

    def activations(self, rows: Iterable[Row], step: int = 0) -> "Script":
        rows = list(rows)
        self._activations = [row.name for row in rows]
        self.add(Layout, step=step, group=0, kind="activation", rows=rows, columns=ACTIVATION_KEYS)
        return self

    def linear_stack(self, depth: int, **row: object) -> "Script":
        """fc1 … fc<depth> and a head, weights only."""
        names = [f"fc{index}" for index in range(1, depth + 1)] + ["head"]
        shapes = [(64, 64)] * depth + [(10, 64)]
        return self.parameters(
            Row(name=f"{name}.weight", layer=name, type="Linear", shape=shape, **row)
            for name, shape in zip(names, shapes, strict=True)
        )

    def relu_stack(self, depth: int) -> "Script":
        """fc1, relu1 … each a row."""
        return self.activations(
            Row(name=f"{kind}{index}", layer=f"{kind}{index}", type=type_, shape=(32, 64))
            for index in range(1, depth + 1)
            for kind, type_ in (("fc", "Linear"), ("relu", "ReLU"))
        )

    def step(
        self,
        step: int,
        scalars: dict[str, float] | None = None,
        parameters: dict[str, dict[str, float]] | None = None,
        activations: dict[str, dict[str, float]] | None = None,
    ) -> "Script":
        """A step; healthy samples unless rows are overridden. None leaves the samples out."""
        samples = []
        if parameters is not None:
            values = _matrix(self._parameters, PARAMETER_KEYS, HEALTHY_PARAMETER, parameters)
            samples.append(Sample(group=1, values=values))
        if activations is not None:
            values = _matrix(self._activations, ACTIVATION_KEYS, HEALTHY_RELU, activations)
            samples.append(Sample(group=0, values=values))
        self.add(Step, step=step, scalars=scalars or {}, samples=samples)
        return self

    def event(self, step: int, **data: object) -> "Script":
        self.add(Event, step=step, kind="nonfinite", data=data)
        return self

    def end(self, step: int) -> "Script":
        self.add(End, step=step, status="finished")
        return self

    def engine(self) -> Engine:
        engine = Engine()
        for record in self.records:
            engine.feed(self.stream, record)
        return engine

    def findings(self) -> dict[str, Finding]:
        return {finding.rule: finding for finding in self.engine().findings()}

    def states(self) -> dict[str, str]:
        return {state.rule: state.state for state in self.engine().states()}


def _matrix(
    names: list[str],
    keys: list[str],
    healthy: dict[str, float],
    overrides: dict[str, dict[str, float]],
) -> bytes:
    unknown = set(overrides) - set(names) - {"*"}
    assert not unknown, f"no rows {unknown}"
    rows = []
    for name in names:
        values = healthy | overrides.get("*", {}) | overrides.get(name, {})
        if healthy is HEALTHY_RELU and name.startswith("fc"):
            values = values | {"dead_fraction": math.nan}
        rows.append([values[key] for key in keys])
    return pack_floats(np.array(rows, dtype=np.float32))


@pytest.fixture
def script() -> type[Script]:
    return Script


@pytest.fixture(scope="session")
def silenced():
    """A ReLU layer of 100 units as it is counted: `batch` positions a sample, of which `share(step)` of the units are
    silent. The others are at `zeros` of their positions."""

    def layer(batch, share, zeros=0.5):
        counted, outputs = DeadUnits(nn.ReLU()), {}

        def sample(step):
            silent = round(100 * share(step))
            if silent not in outputs:
                output = np.ones((batch, 100), np.float32)
                output[1 : round(zeros * batch)] = 0.0
                output[:, :silent] = 0.0
                outputs[silent] = output, float((output == 0).mean())
            output, zero = outputs[silent]
            counted.see(output, channels_first=False)
            dead, positions = counted.read()
            return {"dead_fraction": dead, "dead_positions": positions, "zero_fraction": zero}

        return sample

    return layer
