"""The vitals map as codes of one byte a cell: what the page's own canvas draws, thousands of layers at once."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trainvitals.app.figures import bands, blocks
from trainvitals.app.figures.base import array
from trainvitals.app.figures.cells import Cells, Line
from trainvitals.app.figures.text import number
from trainvitals.app.figures.types import Flags, Floats, Ints
from trainvitals.hooks.wire.columns import ACTIVATION, PARAMETER

Codes = npt.NDArray[np.int8]

FULL: Final = 100
"""Code of a score of `bands.FULL`; 0 is healthy, negative too small."""
NONFINITE: Final = 127
GRADIENT_NONFINITE: Final = 126
"""NaN or infinity in gradients alone: the layer's output and weights are finite."""
FROZEN: Final = -127
"""Measured, without a gradient, in a bucket in which other layers have one."""
MISSING: Final = -128

COUNTS: Final = ("nonfinite", "weight_nonfinite", "grad_nonfinite")
"""Statistics that count non-finite values; not colours of their own."""
BREAKS: Final = ("std", "grad_rms")
"""Statistics of which one value that is not finite makes the whole not finite: of outputs, of gradients."""
JUDGED: Final = ("update_ratio", "std", "dead_fraction", "grad_rms")
"""Statistics with a healthy band; "vitals" is the worst of them."""
COLUMNS: Final = {column.key: column for column in (*ACTIVATION, *PARAMETER)}
SHARES: Final = frozenset(
    key for key, column in COLUMNS.items() if column.unit == "fraction" and key not in JUDGED
)
"""Statistics from 0 to 1 without a healthy band: pale to dark."""
STATISTICS: Final = ("vitals", *(key for key in COLUMNS if key not in COUNTS))
_NO_BAND: Final = frozenset({"dead_positions", "unchanged", "batch_variation"})


class Picture(msgspec.Struct, frozen=True):
    """The map of some steps: rows with each block's layers together."""

    lines: list[Line]
    edges: Ints
    """First step of each bucket, and the first step after the last; shape `(buckets + 1,)`."""
    codes: Codes
    """Shape `(rows, buckets)`."""
    shares: bool
    """Whether codes run from 0 to `FULL` as shares, pale to dark, instead of around a healthy band."""
    summary: str


def score(key: str, cells: Cells, known: bands.Levels | None, loose: Flags) -> Floats:
    """How far the cells of a statistic are from healthy; shares as they are, 0 to `bands.FULL`."""
    if key in SHARES:
        return cells.max * bands.FULL
    match key:
        case "update_ratio":
            return bands.update_ratio(cells, known)
        case "std":
            return bands.activation_std(cells, known, loose)
        case "dead_fraction":
            return bands.dead_units(cells)
        case "grad_rms":
            return bands.gradient_rms(cells, known)
        case _ if key in _NO_BAND:
            return np.where(np.isfinite(cells.mean), 0.0, np.nan)
        case _:
            return bands.drift(_sizes(cells), known)


def levels(key: str, cells: Cells) -> bands.Levels | None:
    """What the cells of a statistic are held against; None where that is the same in every run."""
    match key:
        case "update_ratio":
            return bands.ratio_levels(cells)
        case "std":
            return bands.std_levels(cells)
        case "grad_rms":
            return bands.size_levels(cells)
        case _ if key in SHARES or key in _NO_BAND or key == "dead_fraction":
            return None
        case _:
            return bands.size_levels(_sizes(cells))


def picture(
    lines: Sequence[Line],
    cells: Mapping[str, Cells],
    breaks: Mapping[str, Cells],
    *,
    stop: int,
    levels: Mapping[str, bands.Levels],
    loose: Flags,
) -> Picture:
    """Judge `cells` (statistic -> values on one grid); of several statistics each cell shows the worst.

    breaks: those of `BREAKS` on the same grid. stop: first step after the last bucket. levels: by statistic, those
    of the whole run where `cells` are a part of it. loose: see `bands.activation_std`.
    """
    steps = next(iter(cells.values())).steps
    scores = [score(key, value, levels.get(key), loose) for key, value in cells.items()]
    codes = coded(worst(scores))
    grads = next(
        (value.mean for key, value in cells.items() if key in ("update_ratio", "grad_rms")), None
    )
    if grads is not None:
        codes[_frozen(lines, grads) & ((codes == 0) | (codes == MISSING))] = FROZEN
    codes[breaks["grad_rms"].nonfinite > 0] = GRADIENT_NONFINITE
    codes[breaks["std"].nonfinite > 0] = NONFINITE
    order = blocks.ordered([line.name for line in lines])
    placed = [lines[index] for index in order]
    codes = np.ascontiguousarray(codes[order])
    edges = np.append(steps, max(stop, int(steps[-1]) + 1))
    shares = set(cells) <= SHARES
    return Picture(placed, edges, codes, shares, told(placed, codes, steps, shares))


def joined(earlier: Picture, later: Picture, first: int) -> Picture:
    """`earlier` up to its bucket `first`, then all of `later`, a picture of the same layers."""
    codes = np.concatenate([earlier.codes[:, :first], later.codes], axis=1)
    edges = np.concatenate([earlier.edges[:first], later.edges])
    summary = told(later.lines, codes, edges[:-1], later.shares)
    return Picture(later.lines, edges, codes, later.shares, summary)


def worst(scores: Sequence[Floats]) -> Floats:
    """The score farthest from 0 in each cell; NaN where none is known."""
    result = scores[0]
    for other in scores[1:]:
        farther = ~(np.abs(other) <= np.abs(result)) & ~np.isnan(other)
        result = np.where(farther | np.isnan(result), other, result)
    return result


def coded(scores: Floats) -> Codes:
    """Scores as bytes: NaN is `MISSING`."""
    scaled = np.round(np.clip(scores / bands.FULL, -1, 1) * FULL)
    return np.where(np.isnan(scaled), MISSING, np.nan_to_num(scaled)).astype(np.int8)


def ill(codes: Codes) -> Flags:
    """Cells outside their healthy band, NaN included."""
    edge = int(bands.EDGE / bands.FULL * FULL)
    flags: Flags = (codes >= edge) | ((codes <= -edge) & (codes > FROZEN))
    return flags


def packed(made: Picture, first: int = 0, stop: int | None = None) -> dict[str, Any]:
    """`made` as the browser takes it; with `first`, only its buckets from there on, without the rows.

    stop: the bucket before which a part of it ends, None for all; what the browser has of later steps stays then.
    """
    end = made.codes.shape[1] if stop is None else stop
    codes = made.codes[:, first:end]
    answer: dict[str, Any] = {
        "first": first,
        "part": stop is not None,
        "edges": made.edges[first : end + 1].tolist(),
        "codes": array(codes) if codes.size else [],
        "shares": made.shares,
        "summary": made.summary,
    }
    if first == 0:
        answer["rows"] = [
            {"name": line.name, "type": line.type, "block": blocks.block_of(line.name)}
            for line in made.lines
        ]
    return answer


def told(lines: Sequence[Line], codes: Codes, steps: Ints, shares: bool) -> str:
    """The map in words."""
    text = f"{number(len(lines))} layer{'s' if len(lines) != 1 else ''}"
    broken: Flags = codes >= GRADIENT_NONFINITE
    parts = []
    if broken.any():
        bucket = int(np.flatnonzero(broken.any(axis=0))[0])
        # Of the layers that break in the first bucket the output's own break says more than gradients'.
        row = int(np.argmax(np.where(broken[:, bucket], codes[:, bucket], -1)))
        parts.append(
            f"NaN or infinity in {number(int(broken.any(axis=1).sum()))} layers, "
            f"first in {lines[row].name or '(root)'} at step {number(int(steps[bucket]))}"
        )
    outside = np.zeros(len(lines), np.bool_)
    if not shares:
        outside |= (ill(codes) & ~broken).any(axis=1)
    if outside.any():
        names = [lines[index].name or "(root)" for index in np.flatnonzero(outside)[:5]]
        more = f" and {int(outside.sum()) - 5} more" if outside.sum() > 5 else ""
        parts.append(f"outside the healthy band at times: {', '.join(names)}{more}")
    if parts:
        return f"{text}: {'; '.join(parts)}."
    return f"{text}." if shares else f"{text}: all within their healthy bands."


def _frozen(lines: Sequence[Line], gradients: Floats) -> Flags:
    """Cells of layers with parameters that have no gradient where another layer has one."""
    has = np.isfinite(gradients)
    owns = np.array([bool(line.weights) for line in lines])[:, None]
    others: Flags = np.logical_or.reduce(has, axis=0)
    return owns & ~has & others[None, :]


def _sizes(cells: Cells) -> Cells:
    """Magnitudes of a statistic that may be negative."""
    top = np.fmax(np.abs(cells.min), np.abs(cells.max))
    return Cells(cells.steps, np.abs(cells.min), top, np.abs(cells.mean), cells.nonfinite)
