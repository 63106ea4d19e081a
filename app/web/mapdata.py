"""What the vitals map is made from: statistics of every layer, read from the store onto one grid."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainvitals.app.figures import bands, judged
from trainvitals.app.figures.cells import Cells, Line, gather, grid
from trainvitals.app.figures.types import Ints
from trainvitals.app.store import Store
from trainvitals.app.store.types import Matrix, Run
from trainvitals.app.web import runview
from trainvitals.hooks.wire.columns import ACTIVATION
from trainvitals.hooks.wire.records import GroupKind

BUCKETS = 400
CELLS = 400_000
"""A run with more layers gets fewer buckets: its map takes as long to read and to send."""
FEWEST = 160
MOST = 8_000
"""Bytes of codes, compressed, that come at a time to a page that has a map; as base64 they take half as much again."""
_ACTIVATION = frozenset(column.key for column in ACTIVATION)

Read = tuple[list[Line], dict[str, Cells], dict[str, Cells]]


def cells(
    store: Store, run: Run, statistic: str, start: int | None, stop: int | None
) -> Read | None:
    """The layers, the cells of a map by statistic, and those in which NaN shows; None without any."""
    lines = lines_of(store, run)
    read = matrices(store, run, statistic, len(lines), start, stop)
    steps = grid(list(read.values()))
    if not lines or not len(steps):
        return None
    return lines, *on_grid(read, steps, lines, statistic)


def lines_of(store: Store, run: Run) -> list[Line]:
    """The layers of a run."""
    return runview.remembered(store, run, "lines", lambda: runview.lines(store.layouts(run.id)))


def on_grid(
    read: Mapping[str, Matrix], steps: Ints, lines: Sequence[Line], statistic: str
) -> tuple[dict[str, Cells], dict[str, Cells]]:
    """The cells of a map by statistic on the buckets that begin at `steps`, and those in which NaN shows."""
    made = {key: _gather(key, matrix, steps, lines) for key, matrix in read.items()}
    return {key: made[key] for key in _keys(statistic)}, {key: made[key] for key in judged.BREAKS}


def _keys(statistic: str) -> Sequence[str]:
    return judged.JUDGED if statistic == "vitals" else (statistic,)


def matrices(
    store: Store, run: Run, statistic: str, rows: int, start: int | None, stop: int | None
) -> dict[str, Matrix]:
    """What a map of that statistic, of so many layers, is made from."""
    buckets = max(min(BUCKETS, CELLS // max(rows, 1)), FEWEST)
    wanted = dict.fromkeys((*_keys(statistic), *judged.BREAKS))
    return _read(store, run, list(wanted), start, stop, buckets)


def _read(
    store: Store, run: Run, keys: Sequence[str], start: int | None, stop: int | None, buckets: int
) -> dict[str, Matrix]:
    """Statistics by key, in that order."""
    found: dict[str, Matrix] = {}
    for group in dict.fromkeys(map(kind, keys)):
        own = [key for key in keys if kind(key) == group]
        found |= store.matrices(run.id, group, own, start=start, stop=stop, buckets=buckets)
    return {key: found[key] for key in keys}


def levels(
    store: Store,
    run: Run,
    keys: Sequence[str],
    lines: Sequence[Line],
    start: int | None,
    stop: int | None,
) -> dict[str, bands.Levels]:
    """The levels over the whole run: a picked range of steps is judged as in the picture of all steps."""
    if start is None and stop is None:
        return {}
    found: dict[str, bands.Levels] = {}
    wanted = [key for key in keys if key in ("std", "grad_rms")]
    for key, matrix in _read(store, run, wanted, None, None, BUCKETS).items():
        of = judged.levels(key, _gather(key, matrix, grid([matrix]), lines))
        found |= {} if of is None else {key: of}
    return found


def kind(key: str) -> GroupKind:
    """The kind of group a statistic is a column of."""
    return "activation" if key in _ACTIVATION else "parameter"


def _gather(key: str, matrix: Matrix, steps: Ints, lines: Sequence[Line]) -> Cells:
    places = {row.name: index for index, row in enumerate(matrix.rows)}
    if kind(key) == "activation":
        groups = [[line.name] for line in lines]
    elif key == "update_ratio":  # of weight matrices: a bias that starts at zero may move freely
        groups = [line.weights for line in lines]
    else:
        groups = [line.parameters for line in lines]
    return gather(matrix, steps, [runview.indices(places, names) for names in groups])


def token(made: judged.Picture, stop: int | None = None) -> str:
    """What a browser has when it has `made`: how many buckets, of which rows and steps, and a sum of all codes.

    stop: the bucket before which it ends, None for all of it.
    """
    count = made.codes.shape[1] if stop is None else stop
    return f"{count}.{_shape(made, count)}.{zlib.crc32(made.codes[:, :count].tobytes()):x}"


def fitting(made: judged.Picture, first: int) -> int | None:
    """The bucket before which an answer from bucket `first` on has to end to be small enough; None if all fits."""
    stop = count = made.codes.shape[1]
    while stop > first + 2 and len(zlib.compress(made.codes[:, first:stop].tobytes(), 1)) > MOST:
        stop = (first + stop + 1) // 2
    return stop if stop < count else None


def kept(made: judged.Picture, known: str) -> int:
    """How many buckets a browser with the token `known` may keep; 0 for none. The last may have grown.

    Cells of kept buckets are the same but for small shifts of a layer's usual level, which the next full map brings.
    """
    count, _, rest = known.partition(".")
    if not (count.isascii() and count.isdigit()) or not 0 < int(count) <= made.codes.shape[1]:
        return 0
    return int(count) - 1 if _shape(made, int(count)) == rest.partition(".")[0] else 0


def _shape(made: judged.Picture, count: int) -> str:
    names = "\0".join(line.name for line in made.lines)
    return f"{zlib.crc32(names.encode('utf-8', 'replace') + made.edges[:count].tobytes()):x}"


def row(
    store: Store, run: Run, line: Line, start: int | None, stop: int | None
) -> dict[str, object]:
    """The statistics of a layer, each parameter's extreme, in buckets like those of the map."""
    look: dict[str, Any] = {"start": start, "stop": stop, "points": BUCKETS}
    read = [store.row(run.id, "activation", line.name, **look)]
    read += [store.row(run.id, "parameter", name, **look) for name in line.parameters[:6]]
    found: dict[str, dict[str, object]] = {}
    for values in read:
        for key, series in values.items():
            if key in judged.COLUMNS and key not in found:
                found[key] = {
                    "title": judged.COLUMNS[key].title,
                    "steps": series.steps,
                    "mean": np.float32(series.mean),
                    "max": np.float32(series.max),
                }
    return {"name": line.name, "type": line.type, "statistics": found}
