"""A step's record in the making, and the queue in which records wait for their device."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trainvitals.hooks import histogram
from trainvitals.hooks.observe.reading import Reading
from trainvitals.hooks.readout import Number, Readout
from trainvitals.hooks.recorder import Recorder
from trainvitals.hooks.registry import Rows
from trainvitals.hooks.wire import codec, limits
from trainvitals.hooks.wire.bins import BINS
from trainvitals.hooks.wire.columns import ACTIVATION, MISSING_BITS, PARAMETER
from trainvitals.hooks.wire.records import GroupKind, HistogramKind, Histograms, Sample

_COLUMNS: dict[GroupKind, list[str]] = {
    "activation": [column.key for column in ACTIVATION],
    "parameter": [column.key for column in PARAMETER],
}
_GROUP: dict[GroupKind, int] = {"activation": 0, "parameter": 1}
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
    key: index for columns in _COLUMNS.values() for index, key in enumerate(columns)
}
"""Column key to its place in its group."""


COPIED = 1 << 22
"""Elements of copies that wait to be measured at most: 16 MiB."""


class Block(NamedTuple):
    """Values of some neighbouring columns of a group, gathered row by row."""

    rows: list[int]
    values: list[Sequence[float]]


class Late(NamedTuple):
    """Some neighbouring columns of one row, of which at least one value is still on a device."""

    kind: GroupKind
    column: int
    row: int
    values: list[Number]


class Draft:
    """What one step has to say, while it is being gathered."""

    def __init__(self, step: int, sampled: bool = False) -> None:
        self.step = step
        self.sampled = sampled
        self.scalars: dict[str, Number] = {}
        self.blocks: dict[tuple[GroupKind, int], Block] = {}
        """By group and first column; what is in no block was not recorded."""
        self.late: list[Late] = []
        self.patterns: dict[HistogramKind, list[tuple[list[int], histogram.Counts]]] = {}
        """Rows and their counts, of shape `(rows, PATTERNS)`; of one row whose counts are on a device `(PATTERNS,)`."""
        self.here = True
        """Whether no number of it is still on a device."""
        self._later: list[Callable[[Draft], None]] = []
        self.copied = 0
        """Elements that are kept for what is still to be measured."""
        self.observed: Reading | None = None
        """What was seen of the loop itself."""

    @property
    def has_statistics(self) -> bool:
        """Whether there is more in it than scalars and what was seen of the loop."""
        return bool(self.blocks or self.patterns or self._later)

    def put(self, kind: GroupKind, column: int, row: int, values: Sequence[Number]) -> None:
        """Note neighbouring columns of a row; all values are numbers, or the first one is on a device."""
        if isinstance(values[0], Tensor):
            self.here = False
            self.late.append(Late(kind, column, row, list(values)))
            return
        self.put_all(kind, column, (row,), (values,))  # type: ignore[arg-type]

    def put_all(
        self,
        kind: GroupKind,
        column: int,
        rows: Sequence[int],
        values: Sequence[Sequence[float]],
    ) -> None:
        """Note neighbouring columns of several rows."""
        if not rows:
            return
        block = self.blocks.get((kind, column))
        if block is None:
            block = self.blocks[kind, column] = Block([], [])
        block.rows.extend(rows)
        block.values.extend(values)

    def put_off(self, work: Callable[["Draft"], None], copied: int) -> None:
        """Have `work` add to the draft when `measure` is called; it holds copies of that many elements until then."""
        self._later.append(work)
        self.copied += copied

    def measure(self) -> None:
        """Do what was put off: in any thread, but never in two at once."""
        while self._later:
            self._later.pop(0)(self)
        self.copied = 0

    def count_all(
        self, kind: HistogramKind, rows: list[int], counts: npt.NDArray[np.int64]
    ) -> None:
        """Note the histograms of several rows, at least one; `counts`: shape `(rows, PATTERNS)`."""
        self.patterns.setdefault(kind, []).append((rows, counts))

    def count(self, kind: HistogramKind, row: int, counts: histogram.Counts) -> None:
        """Note a row's histogram from `histogram.count_patterns`."""
        if isinstance(counts, Tensor):
            self.here = False
            self.patterns.setdefault(kind, []).append(([row], counts))
        else:
            self.count_all(kind, [row], counts[None])


class _Waiting:
    """A draft of which some numbers are still on their way, in one copy."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self._late_scalars = [
            key for key, value in draft.scalars.items() if isinstance(value, Tensor)
        ]
        numbers = [draft.scalars[key] for key in self._late_scalars]
        numbers += [value for late in draft.late for value in late.values]
        counts = [counts for rows in draft.patterns.values() for _, counts in rows]
        asked = draft.observed.tensors if draft.observed is not None else []
        self._asked = len(asked)
        values: Sequence[Any] = [*numbers, *counts, *asked]
        self._readout = Readout([value for value in values if isinstance(value, Tensor)])

    def ready(self) -> bool:
        """Whether `settle` returns without waiting."""
        return self._readout.ready()

    def settle(self) -> Draft:
        """The draft with all of its numbers here. Waits for the device if it has to."""
        draft, arrived = self.draft, iter(self._readout.values())
        for key in self._late_scalars:
            draft.scalars[key] = next(arrived)[0]
        for kind, column, row, values in draft.late:
            here = [next(arrived)[0] if isinstance(value, Tensor) else value for value in values]
            draft.put(kind, column, row, here)
        for chunks in draft.patterns.values():
            for index, (rows, counts) in enumerate(chunks):
                if isinstance(counts, Tensor):
                    chunks[index] = rows, np.array([next(arrived)], dtype=np.int64)
        if draft.observed is not None:
            draft.observed.arrived([next(arrived) for _ in range(self._asked)])
        return draft


class Emitter:
    """Turns drafts into records, in order, each as soon as its device has delivered."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._waiting: deque[_Waiting] = deque()
        self._unmeasured: list[Draft] = []
        """Sent, but copies in them are perhaps still to be measured."""
        self.rows: dict[GroupKind, Rows] = {"activation": Rows(), "parameter": Rows()}

    def log(self, step: int, names: tuple[str, ...], values: list[float]) -> None:
        """Send at most `limits.MAX_SCALARS` numbers that are all here, in turn with the drafts."""
        if self._waiting:
            draft = Draft(step)
            draft.scalars.update(zip(names, values, strict=True))
            self.emit(draft)
        else:
            self._recorder.scalars((step, names, values))

    def emit(self, draft: Draft) -> None:
        """Send a draft, at once when all of it is here."""
        here = draft.here and Tensor not in map(type, draft.scalars.values())
        here = here and (draft.observed is None or draft.observed.on_host)
        if here and not self._waiting:
            self._send(draft)
        else:
            self._waiting.append(_Waiting(draft))
            self.poll()

    def poll(self, wait: bool = False) -> None:
        """Send the drafts that have arrived by now; with `wait`, all of them."""
        while self._waiting and (wait or len(self._waiting) > 64 or self._waiting[0].ready()):
            self._send(self._waiting.popleft().settle())

    def send_layout(self, kind: GroupKind, step: int) -> None:
        """Send a group's layout, if it changed since it was last sent."""
        rows = self.rows[kind]
        if rows.dirty and rows.rows:
            rows.dirty = False
            self._recorder.layout(
                step=step,
                group=_GROUP[kind],
                kind=kind,
                rows=list(rows.rows),
                columns=_COLUMNS[kind],
            )

    def _send(self, draft: Draft) -> None:
        fields: dict[str, Any] = {}
        observed = draft.observed.finish() if draft.observed is not None else None
        if observed is not None:
            fields["observed"] = observed
        scalars: dict[str, Any] = draft.scalars
        parts = [scalars]
        if len(scalars) > limits.MAX_SCALARS:
            keys, most = list(scalars), limits.MAX_SCALARS
            some = (keys[begin : begin + most] for begin in range(0, len(keys), most))
            parts = [{key: scalars[key] for key in part} for part in some]
        if draft.has_statistics:
            for kind in _GROUP:
                self.send_layout(kind, draft.step)
            self._make_room(draft)
            sizes = {kind: len(self.rows[kind].rows) for kind in _GROUP}
            self._recorder.statistics(
                step=draft.step,
                scalars=parts[0],
                statistics=partial(encoded, draft, sizes),
                **fields,
            )
        else:
            self._recorder.step(step=draft.step, scalars=parts[0], **fields)
        for part in parts[1:]:
            self._recorder.step(step=draft.step, scalars=part)

    def _make_room(self, draft: Draft) -> None:
        """Measure a draft at once if those that wait for it to be done elsewhere hold too much already."""
        self._unmeasured = [other for other in self._unmeasured if other.copied]
        if draft.copied + sum(other.copied for other in self._unmeasured) > COPIED:
            draft.measure()
        else:
            self._unmeasured.append(draft)


def encoded(draft: Draft, sizes: dict[GroupKind, int]) -> dict[str, Any]:
    """The fields of a step's record that hold its statistics; `sizes`: rows of each group when they were taken."""
    draft.measure()
    blocks, patterns = draft.blocks, draft.patterns
    samples: list[Sample] = []
    for kind in _GROUP:
        columns = {place[1]: block for place, block in blocks.items() if place[0] == kind}
        if columns:
            values = codec.pack_floats(_matrix(kind, columns, sizes[kind]))
            samples.append(Sample(group=_GROUP[kind], values=values))
    fields: dict[str, Any] = {"samples": samples} if samples else {}
    if patterns:
        fields["histograms"] = _histograms(patterns, sizes)
    return fields


def _matrix(kind: GroupKind, blocks: dict[int, Block], rows: int) -> npt.NDArray[np.float32]:
    bits = np.full((rows, len(_COLUMNS[kind])), MISSING_BITS, dtype=np.uint32)
    matrix = bits.view(np.float32)
    with np.errstate(over="ignore"):
        for column, block in blocks.items():
            values = np.array(block.values, dtype=np.float64)
            matrix[block.rows, column : column + values.shape[1]] = values
    bits[np.isnan(matrix) & _NAN_IS_MISSING[kind]] = MISSING_BITS
    return matrix


def _histograms(
    patterns: dict[HistogramKind, list[tuple[list[int], histogram.Counts]]],
    sizes: dict[GroupKind, int],
) -> list[Histograms]:
    parts = [counts for chunks in patterns.values() for _, counts in chunks]
    folded = histogram.fold(np.concatenate(parts))
    found, begin = [], 0
    for kind, chunks in patterns.items():
        group = _KIND[kind]
        counts = np.zeros((sizes[group], BINS), dtype=np.int64)
        rows = [row for chunk, _ in chunks for row in chunk]
        counts[rows] = folded[begin : begin + len(rows)]
        begin += len(rows)
        packed = codec.pack_counts(counts)
        found.append(Histograms(group=_GROUP[group], kind=kind, counts=packed))
    return found
