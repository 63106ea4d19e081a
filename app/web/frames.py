"""Runs seen in frames, as a film shows them: what is read of a run stays the same for a moment.

Pages that watch one run ask at different times, each for what is new since its last answer. Where all of them see the
same frames, one reading serves them all, and their next questions are the same.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from trainvitals.app.store import Store

FRAME_S = 0.7
"""How long a frame lasts, seconds: with the second between two questions, what was stored is seen within two."""
MAX_FRAMES = 200
"""Runs whose frame is kept by a worker."""
_READS = frozenset(
    "run streams layouts scalar_names events series matrix row histograms latest evaluation findings".split()
)
"""Methods of the store whose first argument is the run that they read."""


@dataclass(slots=True)
class _Frame:
    began: float
    reading: threading.Lock = field(default_factory=threading.Lock)
    read: dict[Hashable, Any] = field(default_factory=dict)


class _Frames:
    """The reads of `store`, as its own methods; what they give must not be changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._frames: OrderedDict[str, _Frame] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return partial(self._read, name, method) if name in _READS else method

    def _read(
        self, name: str, method: Callable[..., Any], run: str, *rest: Any, **more: Any
    ) -> Any:
        frame = self._frame(run)
        key = (name, _hashable(rest), _hashable(sorted(more.items())))
        with frame.reading:
            if key not in frame.read:
                frame.read[key] = method(run, *rest, **more)
            return frame.read[key]

    def _frame(self, run: str) -> _Frame:
        now = time.monotonic()
        with self._lock:
            frame = self._frames.get(run)
            if frame is None or now - frame.began >= FRAME_S:
                frame = self._frames[run] = _Frame(now)
                self._frames.move_to_end(run)
                while len(self._frames) > MAX_FRAMES:
                    self._frames.popitem(last=False)
            return frame


def framed(store: Store) -> Store:
    """`store`, with reads that show each run in frames."""
    return cast(Store, _Frames(store))


def _hashable(value: Any) -> Hashable:
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return cast(Hashable, value)
