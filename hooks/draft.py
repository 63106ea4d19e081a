"""A step's record in the making, and the queue in which records wait for their device."""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainvitals.hooks import histogram
from trainvitals.hooks.readout import Number, Readout
from trainvitals.hooks.recorder import Recorder
from trainvitals.hooks.registry import Rows
from trainvitals.hooks.wire import codec, limits
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
COLUMN: dict[str, int] = {
    key: index for columns in _COLUMNS.values() for index, key in enumerate(columns)
}
"""Column key to its place in its group."""
_RATIO = COLUMN["update_ratio"]


class Draft:
    """What one step has to say, while it is being gathered."""

    def __init__(self, step: int, sampled: bool = False) -> None:
        self.step = step
        self.sampled = sampled
        self.scalars: dict[str, Number] = {}
        self.values: dict[GroupKind, dict[int, dict[int, Number]]] = {
            "activation": {},
            "parameter": {},
        }
        """Row to column to number; what is not there was not recorded."""
        self.patterns: dict[HistogramKind, dict[int, Tensor]] = {}
        """Row to the counts of `histogram.count_patterns`."""

    def put(self, kind: GroupKind, row: int, columns: dict[str, Number]) -> None:
        """Note statistics of a row."""
        target = self.values[kind].setdefault(row, {})
        for key, value in columns.items():
            target[COLUMN[key]] = value

    def numbers(self) -> list[Number]:
        """All numbers, in the order in which `Emitter` puts them back."""
        found = list(self.scalars.values())
        for rows in self.values.values():
            for columns in rows.values():
                found.extend(columns.values())
        return found


class _Waiting:
    """A draft of which some numbers are still on their way."""

    def __init__(self, draft: Draft, numbers: list[Number]) -> None:
        self.draft = draft
        self.places = [i for i, value in enumerate(numbers) if isinstance(value, Tensor)]
        self.numbers = numbers
        tensors = [value for value in numbers if isinstance(value, Tensor)]
        patterns = [
            counts
            for rows in draft.patterns.values()
            for counts in rows.values()
            if counts.device.type != "cpu"
        ]
        self.readout = Readout(tensors + patterns)

    def settle(self) -> list[float]:
        """The numbers of the draft, and its histograms on the CPU. Waits for the device if it has to."""
        values = self.readout.values()
        for place, value in zip(self.places, values, strict=False):
            self.numbers[place] = value[0]
        rest = iter(values[len(self.places) :])
        for rows in self.draft.patterns.values():
            for row, counts in rows.items():
                if counts.device.type != "cpu":
                    rows[row] = torch.tensor(next(rest), dtype=torch.int64)
        return [float(value) for value in self.numbers]


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
        scalars = draft.scalars
        if (
            not draft.sampled
            and not self._waiting
            and len(scalars) <= limits.MAX_SCALARS
            and all(type(value) is float for value in scalars.values())
        ):  # nearly every step: nothing to copy, nothing to wait for
            self._recorder.step(step=draft.step, scalars=scalars)
            return
        numbers = draft.numbers()
        on_host = not any(isinstance(value, Tensor) for value in numbers) and all(
            counts.device.type == "cpu"
            for rows in draft.patterns.values()
            for counts in rows.values()
        )
        if on_host and not self._waiting:
            self._send(draft, numbers)  # type: ignore[arg-type]
        else:
            self._waiting.append(_Waiting(draft, numbers))
            self.poll()

    def poll(self, wait: bool = False) -> None:
        """Send the drafts that have arrived by now; with `wait`, all of them."""
        while self._waiting and (
            wait or len(self._waiting) > 64 or self._waiting[0].readout.ready()
        ):
            waiting = self._waiting.popleft()
            self._send(waiting.draft, waiting.settle())

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

    def _send(self, draft: Draft, numbers: list[float]) -> None:
        upcoming = iter(numbers)
        scalars = {key: next(upcoming) for key in draft.scalars}
        samples: list[Sample] = []
        for kind, rows in draft.values.items():
            if rows:
                self.send_layout(kind, draft.step)
                matrix = self._matrix(kind, rows, upcoming)
                samples.append(Sample(group=_GROUP[kind], values=codec.pack_floats(matrix)))
        fields: dict[str, Any] = {"samples": samples} if samples else {}
        if draft.patterns:
            fields["histograms"] = [
                self._histograms(kind, rows) for kind, rows in draft.patterns.items() if rows
            ]
        keys = list(scalars)
        for begin in range(0, max(len(keys), 1), limits.MAX_SCALARS):
            part = {key: scalars[key] for key in keys[begin : begin + limits.MAX_SCALARS]}
            self._recorder.step(step=draft.step, scalars=part, **fields)
            fields = {}

    def _matrix(
        self, kind: GroupKind, rows: dict[int, dict[int, Number]], numbers: Any
    ) -> npt.NDArray[np.float32]:
        shape = (len(self.rows[kind].rows), len(_COLUMNS[kind]))
        bits = np.full(shape, MISSING_BITS, dtype=np.uint32)
        matrix = bits.view(np.float32)
        with np.errstate(over="ignore"):
            for row, columns in rows.items():
                for column in columns:
                    value = next(numbers)
                    # No ratio where there was no weight to compare with. That is known only now, when a
                    # device has delivered, and it is no non-finite value of the training.
                    if value == value or column != _RATIO or kind != "parameter":
                        matrix[row, column] = value
        return matrix

    def _histograms(self, kind: HistogramKind, rows: dict[int, Tensor]) -> Histograms:
        group = _KIND[kind]
        patterns = np.zeros((len(self.rows[group].rows), histogram.PATTERNS), dtype=np.int64)
        for row, counted in rows.items():
            patterns[row] = counted.numpy()
        counts = histogram.fold(patterns)
        return Histograms(group=_GROUP[group], kind=kind, counts=codec.pack_counts(counts))
