"""Numbers records and brings them to the spool from a thread of its own. Loads no torch."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import groupby
from queue import SimpleQueue
from typing import Any

from trainvitals.hooks import gathered as statistics
from trainvitals.hooks import spool
from trainvitals.hooks.gathered import Gathered
from trainvitals.hooks.sender import say
from trainvitals.hooks.wire import codec, limits
from trainvitals.hooks.wire.records import End, Event, Layout, Record, Start, Step
from trainvitals.hooks.wire.scalars import Row, pack

FLUSH_INTERVAL = 0.2
"""Seconds that a record waits in memory at most: what a kill may cost."""
MAX_BUFFERED = 50_000
"""Records in memory; more than that means that the disk stands still, and they are dropped."""
_MAX_UNPACKED = 8_192
"""Rows of statistics that wait to be packed, which takes them from about 2 KiB to 100 bytes: beyond that they are
packed where they come from."""
_WRITE_AT_ONCE = 2048

_NONE: dict[str, float] = {}

_Make = Callable[[int], Record]


class _Sampled:
    """Makes the record of a sampled step, whose statistics are packed with those of others."""

    def __init__(self, now: float, gathered: Gathered, fields: dict[str, Any]) -> None:
        self._time = now
        self.gathered = gathered
        self._fields = fields

    def __call__(self, seq: int) -> Record:
        return Step(seq=seq, time=self._time, **self._fields, **self.gathered.fields())


class Recorder:
    """Takes records from the training thread at the price of an append.

    Records get their number when they are written, so that one that could not be written leaves no gap. Steps with
    nothing but scalars that follow each other become one record. The thread sleeps while there is nothing to write.
    """

    def __init__(self, writer: spool.SpoolWriter) -> None:
        self._writer = writer
        self._buffer: deque[Row | _Make | _Sampled] = deque()  # append and popleft need no lock
        self._rows_taken = self._rows_packed = 0  # each is changed in one place only
        self._next = 0
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._idle = False
        self._bell: SimpleQueue[None] = SimpleQueue()  # putting never waits for the other side
        self._complained = False
        self.dropped = 0
        """What was lost to a full disk or a standstill: steps, and other records."""
        self.processor_seconds = 0.0
        """What the thread has taken so far."""
        self._thread = threading.Thread(target=self._work, name="trainvitals-spool", daemon=True)
        self._thread.start()

    def start(self, **fields: Any) -> None:
        """The first record of the stream."""
        self._make(Start, fields)

    def layout(self, **fields: Any) -> None:
        """Rows and columns of a group."""
        self._make(Layout, fields)

    def step(
        self,
        *,
        step: int,
        scalars: Mapping[str, float] = _NONE,
        gathered: Gathered | None = None,
        **fields: Any,
    ) -> None:
        """What one step has to say; `gathered`: statistics of which fields are still to be made."""
        if gathered is not None:
            if self._rows_taken - self._rows_packed > _MAX_UNPACKED:
                gathered.fields()
            fields |= {"step": step, "scalars": scalars}
            if self._add(_Sampled(time.time(), gathered, fields)):
                self._rows_taken += gathered.size
        elif fields:
            self._make(Step, {"step": step, "scalars": scalars, **fields})
        else:
            self.scalars((step, tuple(scalars), list(scalars.values())))

    def scalars(self, row: Row) -> None:
        """A step that has only scalars; the row must not be changed any more."""
        buffer = self._buffer
        if len(buffer) >= MAX_BUFFERED:
            self._drop(1, "the disk is too slow")
            return
        buffer.append(row)
        if self._idle:
            self._wake()

    def event(self, *, urgent: bool = False, **fields: Any) -> None:
        """Something that happened; `urgent` writes it before returning."""
        self._make(Event, fields)
        if urgent:
            self.flush()

    def end(self, **fields: Any) -> None:
        """The last record of the stream."""
        self._make(End, fields)
        self.flush()

    def _make(self, kind: type[Record], fields: dict[str, Any]) -> None:
        now = time.time()
        self._add(lambda seq: kind(seq=seq, time=now, **fields))

    def _add(self, make: _Make | _Sampled) -> bool:
        """Whether there was room for it."""
        if len(self._buffer) >= MAX_BUFFERED:
            self._drop(1, "the disk is too slow")
            return False
        self._buffer.append(make)
        if self._idle:
            self._wake()
        return True

    def flush(self) -> None:
        """Write everything that was added so far. Never raises for what the disk does."""
        with self._writing:
            left = len(self._buffer)
            while left > 0:
                count = min(left, _WRITE_AT_ONCE)
                self._write([self._buffer.popleft() for _ in range(count)])
                left -= count

    def _write(self, taken: list[Row | _Make | _Sampled]) -> None:
        self._pack(taken)
        payloads: list[bytes] = []
        held = 0
        for make, steps in _makers(taken):
            try:
                payload = codec.encode_record(make(self._next + len(payloads)))
            except Exception as error:  # whatever is wrong with one record, the others are written
                self._drop(
                    steps, f"a record could not be encoded ({type(error).__name__}: {error})"
                )
                continue
            if len(payload) <= limits.MAX_RECORD_BYTES:
                payloads.append(payload)
                held += steps
            else:
                self._drop(steps, f"a record of {len(payload):,} bytes is too large")
        try:
            self._writer.append(payloads)
        except OSError as error:
            self._drop(held, f"cannot write {self._writer.folder}: {error.strerror or error}")
        else:
            self._next += len(payloads)

    def _pack(self, taken: list[Row | _Make | _Sampled]) -> None:
        """Pack the statistics of all of these at once."""
        sampled = [item.gathered for item in taken if type(item) is _Sampled]
        if sampled:
            with suppress(Exception):  # whichever of them it is cannot be encoded, and that is told
                statistics.pack(sampled)
            self._rows_packed += sum(gathered.size for gathered in sampled)

    def _drop(self, count: int, reason: str) -> None:
        self.dropped += count
        if not self._complained:
            self._complained = True
            say(f"{reason}; records are being lost, training goes on.")

    def _wake(self) -> None:
        self._idle = False
        self._bell.put(None)

    def _work(self) -> None:
        while not self._stop.is_set():
            self._idle = True
            # What was added before this line is seen here; what is added after it rings the bell.
            if not self._buffer:
                self._bell.get()
            self._idle = False
            self._stop.wait(FLUSH_INTERVAL)
            self.flush()
            self.processor_seconds = time.thread_time()

    def close(self) -> None:
        """Write the rest and close the files."""
        self._stop.set()
        self._wake()
        self._thread.join(2.0)
        self.flush()
        with self._writing:
            self._writer.close()


def _makers(taken: list[Row | _Make | _Sampled]) -> Iterator[tuple[_Make, int]]:
    """What makes the records, and of how many steps each is; rows next to each other become one."""
    now = time.time()
    for kind, group in groupby(taken, type):
        if kind is tuple:
            rows: Any = list(group)
            for begin in range(0, len(rows), limits.MAX_SCALAR_ROWS):
                some = rows[begin : begin + limits.MAX_SCALAR_ROWS]
                yield partial(pack, some, now), len(some)
        else:
            make: Any
            for make in group:
                yield make, 1
