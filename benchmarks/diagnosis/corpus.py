"""All cases: faults, their fixed twins, and the clean suite."""

from benchmarks.diagnosis import (
    dynamic,
    feeding,
    learning,
    nonfinite,
    odd_loops,
    other_goals,
    passes,
    ranks,
    schedules,
    trends,
    wiring,
)
from benchmarks.diagnosis.bases import BASES
from benchmarks.diagnosis.case import Case
from benchmarks.diagnosis.healthy import HEALTHY

__all__ = ["CASES", "REGISTERED"]

REGISTERED = (feeding, learning, odd_loops, other_goals, passes, schedules, trends)
"""Modules that add to the registers of others as they are imported."""

_FAULTS = (*dynamic.FAULTS.cases, *nonfinite.FAULTS.cases, *wiring.FAULTS.cases)
_TWINS = tuple(Case(f"twin@{name}", "twin", build) for name, build in BASES.items())
_HEALTHY = tuple(Case(name, "healthy", build) for name, build in HEALTHY.items())

CASES: dict[str, Case] = {case.name: case for case in (*_FAULTS, *_TWINS, *_HEALTHY, *ranks.CASES)}
assert len(CASES) == len(_FAULTS) + len(_TWINS) + len(_HEALTHY) + len(ranks.CASES), (
    "two cases of one name"
)
