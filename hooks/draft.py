"""A step's record in the making, and the queue in which records wait for their device."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import histogram
from trainvitals.hooks.gathered import COLUMNS, GROUP, Block, Gathered
from trainvitals.hooks.observe.reading import Reading
from trainvitals.hooks.readout import Number, Readout
from trainvitals.hooks.recorder import Recorder
from trainvitals.hooks.registry import Rows
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.records import GroupKind, HistogramKind


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
        self.counts: dict[HistogramKind, list[tuple[list[int], histogram.Counts]]] = {}
        """Rows and their counts, of shape `(rows, BINS)`; of one row whose counts are on a device `(PATTERNS,)`."""
        self.here = True
        """Whether no number of it is still on a device."""
        self.observed: Reading | None = None
        """What was seen of the loop itself."""

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

    def count_all(
        self, kind: HistogramKind, rows: list[int], counts: npt.NDArray[np.int64]
    ) -> None:
        """Note the histograms of several rows; `counts`: shape `(rows, BINS)`."""
        self.counts.setdefault(kind, []).append((rows, counts))

    def count(self, kind: HistogramKind, row: int, counts: histogram.Counts) -> None:
        """Note a row's histogram from `histogram.count`."""
        if isinstance(counts, Tensor):
            self.here = False
            self.counts.setdefault(kind, []).append(([row], counts))
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
        counts = [counts for rows in draft.counts.values() for _, counts in rows]
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
        for chunks in draft.counts.values():
            for index, (rows, counts) in enumerate(chunks):
                if isinstance(counts, Tensor):
                    counts = histogram.here(torch.tensor(next(arrived)))
                    chunks[index] = rows, counts[None]
        if draft.observed is not None:
            draft.observed.arrived([next(arrived) for _ in range(self._asked)])
        return draft


class Emitter:
    """Turns drafts into records, in order, each as soon as its device has delivered."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._waiting: deque[_Waiting] = deque()
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
                group=GROUP[kind],
                kind=kind,
                rows=list(rows.rows),
                columns=COLUMNS[kind],
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
        gathered = None
        if draft.blocks or draft.counts:
            for kind in GROUP:
                self.send_layout(kind, draft.step)
            sizes = {kind: len(rows.rows) for kind, rows in self.rows.items()}
            gathered = Gathered(sizes, draft.blocks, draft.counts)  # type: ignore[arg-type]  # all are here
        self._recorder.step(step=draft.step, scalars=parts[0], gathered=gathered, **fields)
        for part in parts[1:]:
            self._recorder.step(step=draft.step, scalars=part)
