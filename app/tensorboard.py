"""TensorBoard's event files as runs: scalars, histograms, and hyperparameters as configuration.

A folder with event files is a run; a folder that `SummaryWriter.add_hparams` named after the time belongs to the run
above it. Records go the way of every other one (`Store.append`). Each batch ends with an event of kind "import" that
says how far every file was read, so that importing again goes on there, and does nothing where nothing is new.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trainvitals.app.store import Store, StoreError
from trainvitals.hooks.wire import limits
from trainvitals.hooks.wire.bins import BINS, bin_of
from trainvitals.hooks.wire.codec import pack_counts
from trainvitals.hooks.wire.records import (
    Batch,
    End,
    Event,
    Histograms,
    Layout,
    Record,
    Row,
    Start,
    Step,
)
from trainvitals.hooks.wire.scalars import pack
from trainvitals.hooks.wire.validate import validate_batch

ATTEMPT: Final = "import"
EVENTS: Final = 1000
"""Event file entries in a batch."""
_BY_TIME: Final = re.compile(r"\d{9,}(\.\d+)?")
_GROUP: Final = 0


class ImportFailed(Exception):  # noqa: N818 - reads as what it says
    """There is nothing to import, or something in the way. The message says what to do."""


@dataclass
class Imported:
    """What became of one run."""

    run: str
    name: str
    scalars: int = 0
    """New values."""
    histograms: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """New entries that trainvitals has no place for, by kind: text, images, ..."""


def import_logs(store: Store, folder: Path, project: str, now: float) -> Iterator[Imported]:
    """Store what is new in the event files under `folder`, at `now` (Unix seconds).

    Raises ImportFailed, StoreError.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportFailed(
            "Reading event files needs tensorboard. Install it with `pip install trainvitals[tensorboard]`."
        ) from error
    found = _runs(folder)
    if not found:
        raise ImportFailed(f"{folder} holds no event files (events.out.tfevents.*).")
    for place, files in sorted(found.items()):
        yield _Import(store, place, files, folder, project or folder.resolve().name, now).run()


def _runs(folder: Path) -> dict[Path, list[Path]]:
    """The event files of each run, in the order in which they were begun."""
    found: dict[Path, list[Path]] = {}
    for file in sorted(folder.rglob("*tfevents*"), key=lambda path: (len(path.parts), path.name)):
        place = file.parent
        if place != folder and _BY_TIME.fullmatch(place.name):
            place = place.parent
        if file.is_file():
            found.setdefault(place, []).append(file)
    return found


class _Import:
    """Reads the files of one run."""

    def __init__(
        self, store: Store, place: Path, files: list[Path], top: Path, project: str, now: float
    ) -> None:
        self._store, self._place, self._files, self._now = store, place, files, now
        self._project = project
        name = place.relative_to(top).as_posix() if place != top else top.resolve().name
        # The same wherever the logs lie: the first file is named after its time, host and process.
        mark = hashlib.sha256(f"{place.resolve().name}/{files[0].name}".encode()).hexdigest()[:10]
        slug = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
        self._result = Imported(f"tb-{slug}-{mark}", name)
        self._plugins: dict[str, str] = {}
        self._read: dict[str, int] = {}
        self._rows: list[str] = []
        self._seq = 0
        self._records: list[Record] = []

    def run(self) -> Imported:
        """Store what is new; what it was."""
        run = self._result.run
        self._seq = self._store.next_seq(run, ATTEMPT, 0)
        for event in self._store.events(run):
            if event.kind == "import":
                self._read = msgspec.convert(event.data, dict[str, int])
        self._rows = [row.name for layout in self._store.layouts(run) for row in layout.rows]
        last = None
        for file in self._files:
            for last in self._entries(file):
                self._take(last)
        if last is not None:
            self._add(End, last[-1].wall_time, step=_step(last[-1].step), status="finished")
            self._send()
        return self._result

    def _entries(self, file: Path) -> Iterator[list[Any]]:
        """The entries of a file that are new, some at a time, noted as read."""
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        key = file.relative_to(self._place).as_posix()
        entries = EventFileLoader(str(file)).Load()
        for entry in islice(entries, self._read.get(key, 0)):
            self._know(entry)
        while part := list(islice(entries, EVENTS)):
            self._read[key] = self._read.get(key, 0) + len(part)
            yield part

    def _know(self, entry: Any) -> None:
        """Remember what kind of data each tag has, which only its first value says."""
        for value in entry.summary.value:
            if value.metadata.plugin_data.plugin_name:
                self._plugins[value.tag] = value.metadata.plugin_data.plugin_name

    def _take(self, part: list[Any]) -> None:
        """Store some entries, and how far the files are read, in one transaction."""
        if self._seq == 0:
            about = {"source": "TensorBoard", "folder": self._result.name}
            self._add(
                Start,
                part[0].wall_time,
                project=self._project[: limits.MAX_NAME],
                name=self._result.name[: limits.MAX_NAME],
                environment=about,
            )
        rows: list[tuple[int, dict[str, float]]] = []
        shapes: list[tuple[int, dict[str, npt.NDArray[np.uint32]]]] = []
        for entry in part:
            self._know(entry)
            for value in entry.summary.value:
                self._value(entry, value, rows, shapes)
        time = part[-1].wall_time
        for first in range(0, len(rows), limits.MAX_SCALAR_ROWS):
            columns = [
                (step, tuple(found), list(found.values()))
                for step, found in rows[first : first + limits.MAX_SCALAR_ROWS]
            ]
            self._records.append(pack(columns, time, self._seq + len(self._records)))
        for step, found in shapes:
            self._shape(time, step, found)
        step = _step(part[-1].step)
        self._add(Event, time, step=step, kind="import", data=dict(self._read))
        self._send()

    def _value(self, entry: Any, value: Any, rows: Any, shapes: Any) -> None:
        from tensorboard.plugins.hparams import metadata as hparams
        from tensorboard.util import tensor_util

        tag, step = value.tag[: limits.MAX_NAME], _step(entry.step)
        match self._plugins.get(value.tag, ""):
            case "scalars":
                number = float(tensor_util.make_ndarray(value.tensor).reshape(-1)[0])
                _put(rows, step, tag, number)
                self._result.scalars += 1
            case "histograms":
                counts = _counts(tensor_util.make_ndarray(value.tensor))
                _put(shapes, step, tag, counts)
                self._result.histograms += 1
            case "hparams" if value.tag == hparams.SESSION_START_INFO_TAG:
                info = hparams.parse_session_start_info_plugin_data(
                    value.metadata.plugin_data.content
                )
                data = {
                    name: getattr(held, held.WhichOneof("kind"))
                    for name, held in info.hparams.items()
                    if held.WhichOneof("kind") in ("number_value", "string_value", "bool_value")
                }
                self._add(Event, entry.wall_time, step=step, kind="config", data=data)
            case "hparams":
                pass  # what the experiment consists of, and when the session ended
            case plugin:
                self._result.skipped[plugin or "unknown"] += 1

    def _shape(self, time: float, step: int, found: dict[str, npt.NDArray[np.uint32]]) -> None:
        new = [name for name in found if name not in self._rows]
        if new:
            self._rows += new
            rows = [Row(name=name, layer=name, type="TensorBoard") for name in self._rows]
            self._add(
                Layout, time, step=step, group=_GROUP, kind="logged", rows=rows, columns=["value"]
            )
        counts = np.zeros((len(self._rows), BINS), np.uint32)
        for name, own in found.items():
            counts[self._rows.index(name)] = own
        packed = Histograms(group=_GROUP, kind="logged", counts=pack_counts(counts))
        self._add(Step, time, step=step, histograms=[packed])

    def _add(self, record: Any, time: float, **fields: Any) -> None:
        self._records.append(record(seq=self._seq + len(self._records), time=time, **fields))

    def _send(self) -> None:
        batch = Batch(
            version=limits.VERSION,
            run=self._result.run,
            attempt=ATTEMPT,
            rank=0,
            first=self._seq,
            records=self._records,
        )
        validate_batch(batch)
        receipt = self._store.append(batch, self._now)
        if receipt.stored != len(self._records):
            raise StoreError(
                "Another import of the same logs is at work. Import again when it is done."
            )
        self._seq, self._records = receipt.next, []


def _put(rows: list[tuple[int, dict[str, Any]]], step: int, tag: str, value: Any) -> None:
    """Add a value to the last row, or to a new one where it is of another step, is full or has the tag already."""
    if not rows or rows[-1][0] != step or tag in rows[-1][1] or len(rows[-1][1]) >= 100:
        rows.append((step, {}))
    rows[-1][1][tag] = value


def _counts(buckets: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """TensorBoard's buckets (left, right, count), shape (n, 3), in the fixed bins: each goes where its middle is."""
    middle = buckets[:, 0] / 2 + buckets[:, 1] / 2
    weights = np.bincount(bin_of(middle), buckets[:, 2], minlength=BINS)
    return np.minimum(weights.round(), 2**32 - 1).astype(np.uint32)


def _step(step: int) -> int:
    return min(max(int(step), 0), limits.MAX_STEP)
