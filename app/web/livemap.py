"""The vitals map of a run that goes on: only what changed since the last picture is judged.

A cell is held against the levels of its layer in the whole run, which settle as the run grows. They are taken anew
once there are a `SETTLED`th more buckets, and with them everything is judged anew; in between a bucket stays as it was
judged, and new ones are held against the same levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainvitals.app.figures import bands, judged
from trainvitals.app.figures.cells import Line, grid
from trainvitals.app.figures.types import Ints
from trainvitals.app.figures.vitals import at_output
from trainvitals.app.store import Store
from trainvitals.app.store.types import Matrix, Run
from trainvitals.app.web import mapdata, runview
from trainvitals.app.web.memory import Memory

SETTLED = 16
MOST = 64
"""Maps that a worker follows: a few hundred kilobytes each."""


@dataclass(slots=True)
class _Sight:
    """The last picture of a map, and what it was made from."""

    picture: judged.Picture | None = None
    lines: list[Line] = field(default_factory=list)
    read: dict[str, Matrix] = field(default_factory=dict)
    steps: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    levels: dict[str, bands.Levels] = field(default_factory=dict)
    measured: int = 0
    """Buckets that the levels are of."""


_sights = Memory(MOST)


def picture(
    store: Store, run: Run, statistic: str, start: int | None, stop: int | None
) -> judged.Picture | None:
    """The map of `statistic`, None before the first sample. Made once for each version of the run."""
    return _sights.renew(
        store,
        run,
        (statistic, start, stop),
        lambda last: _seen(last or _Sight(), store, run, statistic, start, stop),
    ).picture


def _seen(
    last: _Sight, store: Store, run: Run, statistic: str, start: int | None, stop: int | None
) -> _Sight:
    lines = mapdata.lines_of(store, run)
    read = mapdata.matrices(store, run, statistic, len(lines), start, stop)
    steps = grid(list(read.values()))
    if not lines or not len(steps):
        return _Sight()
    first, levels, measured = 0, last.levels, last.measured
    if last.picture is not None and last.lines == lines:
        # At least the last bucket is judged: it ends elsewhere now.
        first = min(_unchanged(last, read, steps), len(steps) - 1)
    if not first or len(steps) > measured + measured // SETTLED:
        first, measured = 0, len(steps)
        values, breaks = mapdata.on_grid(read, steps, lines, statistic)
        found = {key: judged.levels(key, cells) for key, cells in values.items()}
        levels = {key: of for key, of in found.items() if of is not None}
        levels |= mapdata.levels(store, run, list(values), lines, start, stop)
    else:
        part = {key: _from(matrix, int(steps[first])) for key, matrix in read.items()}
        values, breaks = mapdata.on_grid(part, steps[first:], lines, statistic)
    end = runview.last_step(run) + 1
    made = judged.picture(
        lines,
        values,
        breaks,
        stop=end if stop is None else min(stop, end),
        levels=levels,
        loose=at_output(lines),
    )
    if first and last.picture is not None:
        made = judged.joined(last.picture, made, first)
    return _Sight(made, lines, read, steps, levels, measured)


def _unchanged(last: _Sight, read: Mapping[str, Matrix], steps: Ints) -> int:
    """How many of the map's first buckets are as in the last picture; 0 where all are to be judged."""
    changed = [_first_change(last.read[key], matrix) for key, matrix in read.items()]
    step = min((step for step in changed if step is not None), default=None)
    kept = len(steps) if step is None else int(np.searchsorted(steps, step, side="right")) - 1
    return kept if 0 < kept and np.array_equal(last.steps[:kept], steps[:kept]) else 0


def _first_change(last: Matrix, now: Matrix) -> int | None:
    """The step from which on a matrix differs from what it was; None if it is the same."""
    if last is now:
        return None
    count = min(len(last.steps), len(now.steps))
    if last.rows != now.rows or not count:
        return -1
    differs = last.steps[:count] != now.steps[:count]
    for part in ("min", "max", "mean", "nonfinite"):
        one, other = getattr(last, part)[:, :count], getattr(now, part)[:, :count]
        differs |= ((one != other) & ((one == one) | (other == other))).any(axis=0)  # NaN is NaN
    places = np.flatnonzero(differs)
    if len(places):
        return int(min(last.steps[places[0]], now.steps[places[0]]))
    if len(last.steps) == len(now.steps):
        return None
    return int((last if len(last.steps) > count else now).steps[count])


def _from(matrix: Matrix, step: int) -> Matrix:
    """The buckets of `matrix` that begin at `step` or later."""
    first = int(np.searchsorted(matrix.steps, step))
    return Matrix(
        matrix.rows,
        matrix.steps[first:],
        matrix.min[:, first:],
        matrix.max[:, first:],
        matrix.mean[:, first:],
        matrix.nonfinite[:, first:],
        matrix.recorded[:, first:],
    )
