"""Statistics of sampled steps as they were gathered, and how those of many steps become fields of records at once.

To pack a few numbers takes its calls, and not their arithmetic; between two steps of a training each of these runs
from a cold cache. So it is left to the thread that writes, which has all samples of the last moment before it. Loads
no torch.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.columns import ACTIVATION, MISSING_BITS, PARAMETER
from trainvitals.hooks.wire.records import GroupKind, HistogramKind, Histograms, Sample

COLUMNS: dict[GroupKind, list[str]] = {
    "activation": [column.key for column in ACTIVATION],
    "parameter": [column.key for column in PARAMETER],
}
GROUP: dict[GroupKind, int] = {"activation": 0, "parameter": 1}
_KIND: dict[HistogramKind, GroupKind] = {
    "activation": "activation",
    "weight": "parameter",
    "gradient": "parameter",
}
_NAN_IS_MISSING: dict[GroupKind, list[bool]] = {
    "activation": [column.nan_is_missing for column in ACTIVATION],
    "parameter": [column.nan_is_missing for column in PARAMETER],
}
COLUMN: dict[str, int] = {
    key: index for columns in COLUMNS.values() for index, key in enumerate(columns)
}
"""Column key to its place in its group."""
_ROWS_AT_ONCE = 1 << 10
"""Rows that are packed in one go: their counts take 2 KiB each."""


class Block(NamedTuple):
    """Values of some neighbouring columns of a group, gathered row by row."""

    rows: list[int]
    values: list[Sequence[float]]


class Gathered:
    """The statistics of one step. Nothing in it may be changed any more."""

    def __init__(
        self,
        rows: dict[GroupKind, int],
        blocks: dict[tuple[GroupKind, int], Block],
        counts: dict[HistogramKind, list[tuple[list[int], npt.NDArray[np.int64]]]],
    ) -> None:
        """`rows`: of each group as it is laid out in this step; `blocks` by group and first column; `counts`: rows
        and their counts, of shape `(rows, BINS)`."""
        self.rows = rows
        self.blocks = blocks
        self.counts = counts
        self._fields: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """Rows of all groups together."""
        return sum(self.rows.values())

    def fields(self) -> dict[str, Any]:
        """As fields of a `Step`; packed here and now, unless `pack` has done it for many at once."""
        if self._fields is None:
            _pack([self])
        assert self._fields is not None
        return self._fields

    def has(self, kind: GroupKind) -> bool:
        """Whether there are statistics of a group."""
        return any(group == kind for group, _ in self.blocks)

    def add(self, **fields: Any) -> None:
        """Some of the fields are packed."""
        self._fields = (self._fields or {}) | fields


def pack(many: Sequence[Gathered]) -> None:
    """Pack those of several steps at once, so that each has its `fields`."""
    some: list[Gathered] = []
    size = 0
    for gathered in many:
        if some and size + gathered.size > _ROWS_AT_ONCE:
            _pack(some)
            some, size = [], 0
        some.append(gathered)
        size += gathered.size
    if some:
        _pack(some)


def _pack(many: Sequence[Gathered]) -> None:
    samples: dict[int, list[Sample]] = {id(gathered): [] for gathered in many}
    for kind, group in GROUP.items():
        having = [gathered for gathered in many if gathered.has(kind)]
        for gathered, values in zip(having, _matrices(kind, having), strict=True):
            packed = codec.pack_floats(values)
            samples[id(gathered)].append(Sample(group=group, values=packed))
    histograms = _histograms(many)
    for gathered in many:
        if samples[id(gathered)]:
            gathered.add(samples=samples[id(gathered)])
        gathered.add(**({"histograms": next(histograms)} if gathered.counts else {}))


def _matrices(kind: GroupKind, many: Sequence[Gathered]) -> Iterator[npt.NDArray[np.float32]]:
    """The values of a group in each step, of shape `(rows, columns)`: all are parts of one matrix."""
    ends = np.cumsum([0, *(gathered.rows[kind] for gathered in many)]).tolist()
    together: dict[int, Block] = {}
    for gathered, begin in zip(many, ends, strict=False):
        for (group, column), block in gathered.blocks.items():
            if group == kind:
                rows, values = together.setdefault(column, Block([], []))
                rows.extend([begin + row for row in block.rows])
                values.extend(block.values)
    bits = np.full((ends[-1], len(COLUMNS[kind])), MISSING_BITS, dtype=np.uint32)
    matrix = bits.view(np.float32)
    with np.errstate(over="ignore"):
        for column, block in together.items():
            found = np.array(block.values, dtype=np.float64)
            matrix[block.rows, column : column + found.shape[1]] = found
    bits[np.isnan(matrix) & _NAN_IS_MISSING[kind]] = MISSING_BITS
    return (matrix[begin:end] for begin, end in pairwise(ends))


def _histograms(many: Sequence[Gathered]) -> Iterator[list[Histograms]]:
    """Those of each step that has any."""
    groups = [
        _by_row(gathered.rows[_KIND[kind]], chunks)
        for gathered in many
        for kind, chunks in gathered.counts.items()
    ]
    packed = iter(codec.pack_counts_of(groups) if groups else [])
    for gathered in many:
        if gathered.counts:
            yield [
                Histograms(group=GROUP[_KIND[kind]], kind=kind, counts=next(packed))
                for kind in gathered.counts
            ]


def _by_row(
    rows: int, chunks: list[tuple[list[int], npt.NDArray[np.int64]]]
) -> npt.NDArray[np.int64]:
    """The counts of all rows of a group, in order."""
    if len(chunks) == 1 and chunks[0][0] == list(range(rows)):
        return chunks[0][1]
    counts = np.zeros((rows, BINS), dtype=np.int64)
    for places, some in chunks:
        counts[places] = some
    return counts
