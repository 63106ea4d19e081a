"""Compares the records of a training with independent readings, and counts what was recorded of what could be."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tests.hooks.conftest import Recorded
from tests.zoo.reference import Array, Readings
from tests.zoo.session import POISON_STEP

FACETS = (
    "activations",
    "gradients",
    "weights",
    "update ratio",
    "dead units",
    "histograms",
    "non-finite watch",
)


def moments_of(values: Array, prefix: str = "") -> dict[str, float]:
    """The columns of one tensor, by NumPy in float64."""
    finite = values[np.isfinite(values)]
    columns = {
        "rms": math.sqrt(np.mean(values**2)),
        "std": float(np.std(values)),
        "absmax": float(np.max(np.abs(values))),
        "nonfinite": float(values.size - finite.size),
    }
    if not prefix:
        columns["mean"] = float(np.mean(values))
        columns["zero_fraction"] = float(np.mean(values == 0))
    return {f"{prefix}{key}": value for key, value in columns.items()}


def expected_activation(readings: Readings, layer: str) -> dict[str, float]:
    """The columns of an activation row."""
    columns = moments_of((readings.activations | readings.passed_on)[layer])
    if layer in readings.units:
        columns["dead_fraction"], columns["dead_positions"] = readings.units[layer]
    return columns


def expected_parameter(readings: Readings, name: str) -> dict[str, float]:
    """The columns of a parameter row."""
    columns: dict[str, float] = {}
    before, after = readings.before[name], readings.after[name]
    columns |= moments_of(before, "weight_")
    columns["unchanged"] = float(np.array_equal(before, after))
    gradient = readings.gradients.get(name)
    if gradient is not None and gradient.size:
        columns |= moments_of(gradient, "grad_")
    size = np.linalg.norm(before)
    if gradient is not None and size:
        columns["update_ratio"] = float(np.linalg.norm(after - before) / size)
    return columns


def grad_norm(readings: Readings) -> float:
    """The global norm over everything that an optimizer got."""
    squares = [np.sum(np.abs(readings.gradients[name]) ** 2) for name in readings.held]
    return math.sqrt(sum(squares))


_EXPECTED = {
    "activation": (lambda at: at.activations | at.passed_on, expected_activation),
    "parameter": (lambda at: at.before, expected_parameter),
}


def differences(
    recorded: Recorded,
    steps: list[Readings],
    tolerance: float,
    kinds: Sequence[Literal["activation", "parameter"]],
) -> Iterator[str]:
    """Every recorded number of these kinds of rows that is not what it should be, as a sentence."""
    norms = recorded.scalar("tv/grad_norm")
    if sorted(norms) != list(range(len(steps))):
        yield f"steps {sorted(norms)} were recorded of {len(steps)}"
        return
    for step, readings in enumerate(steps):
        wanted = grad_norm(readings)
        if "parameter" in kinds and not _close(norms[step], wanted, tolerance, 0.0):
            yield f"step {step}: gradient norm {norms[step]}, not {wanted}"
    for kind in kinds:
        values_of, expect = _EXPECTED[kind]
        for step, rows in recorded.samples(kind).items():
            if step >= len(steps):
                yield f"{kind} rows of step {step}, which did not take place"
                continue
            for row, columns in rows.items():
                if not columns:
                    continue
                if row not in values_of(steps[step]):
                    yield f"step {step}: {kind} row {row!r} is none"
                    continue
                wanted = expect(steps[step], row)
                for column, value in columns.items():
                    slack = _slack(wanted, column) * tolerance
                    if column not in wanted:
                        yield f"step {step}: {row!r} has no {column}, recorded {value}"
                    elif not _close(value, wanted[column], tolerance, slack):
                        yield f"step {step}: {column} of {row!r} is {value}, not {wanted[column]}"


def _slack(columns: dict[str, float], column: str) -> float:
    """What a mean or a spread near zero is to be compared with: the size of the values."""
    prefix = column.rpartition("_")[0]
    near_zero = column in ("mean", "std") or column.endswith("_std")
    key = f"{prefix}_rms" if prefix and column != "zero_fraction" else "rms"
    return columns.get(key, 0.0) if near_zero else 0.0


def _close(value: float, wanted: float, relative: float, absolute: float) -> bool:
    if math.isnan(wanted):
        return math.isnan(value)
    return math.isclose(value, wanted, rel_tol=relative, abs_tol=absolute + 1e-30)


def histogram_differences(recorded: Recorded, steps: list[Readings]) -> Iterator[str]:
    """Histograms that do not count each value once."""
    sources = {
        "activation": ("activation", lambda at: at.activations | at.passed_on),
        "weight": ("parameter", lambda at: at.before),
        "gradient": ("parameter", lambda at: at.gradients),
    }
    for kind, (group, values_of) in sources.items():
        places = _places(recorded, group)
        for step, counts in recorded.histograms(kind).items():
            values = values_of(steps[step])
            for place, row in enumerate(counts):
                name = places[place]
                if row.sum() and row.sum() != values[name].size:
                    yield f"step {step}: {kind} histogram of {name!r} counts {row.sum()} values"


def _places(recorded: Recorded, kind: str) -> list[str]:
    layouts = recorded.layouts(kind)
    return [row.name for row in layouts[-1].rows] if layouts else []


@dataclass(frozen=True)
class Share:
    """How many of what there was to record were recorded."""

    found: int
    of: int

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.found == self.of

    def __str__(self) -> str:
        return f"{self.found}/{self.of}" if self.of else "–"


def shares(recorded: Recorded, steps: list[Readings]) -> dict[str, Share]:
    """Rows with a facet, of those that had it at any step: of the last step at which they had it."""
    last_layer = {name: step for step, at in enumerate(steps) for name in at.activations}
    last_units = {name: step for step, at in enumerate(steps) for name in at.units}
    last_gradient = {name: step for step, at in enumerate(steps) for name in at.gradients}
    last_weight = {name: step for step, at in enumerate(steps) for name in at.before}
    last_update = {
        name: step for name, step in last_gradient.items() if np.any(steps[step].before[name])
    }
    activations, parameters = recorded.samples("activation"), recorded.samples("parameter")

    def count(samples: dict[int, dict[str, dict[str, float]]], last: dict[str, int], key: str):
        found = sum(key in samples.get(step, {}).get(name, {}) for name, step in last.items())
        return Share(found, len(last))

    kinds = {"activation": last_layer, "weight": last_weight, "gradient": last_gradient}
    possible = [kind for kind, rows in kinds.items() if rows]
    seen = [kind for kind in possible if recorded.histograms(kind)]
    return {
        "activations": count(activations, last_layer, "rms"),
        "gradients": count(parameters, last_gradient, "grad_rms"),
        "weights": count(parameters, last_weight, "weight_rms"),
        "update ratio": count(parameters, last_update, "update_ratio"),
        "dead units": count(activations, last_units, "dead_fraction"),
        "histograms": Share(len(seen), len(possible)),
    }


def nonfinite_seen(recorded: Recorded, poisoned: str) -> str:
    """What the watch said of a weight that was made NaN before `POISON_STEP`."""
    events = recorded.events("nonfinite")
    if not events or events[0].step != POISON_STEP:
        return "no"
    found = events[0].data
    named = found.get("direction") == "parameter" and found.get("parameter") == poisoned
    return "step and place" if named else "step"
