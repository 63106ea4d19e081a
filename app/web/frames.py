"""Runs seen in frames, as a film shows them: what is read of a run stays the same for a moment.

Pages that watch one run ask at different times, each for what is new since its last answer. Where all of them see the
same frames, one reading serves them all, and their next questions are the same. From one frame to the next curves
and matrices are followed by cursor, so that only what is new is read.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from trainvitals.app.store import Store
from trainvitals.app.web.following import Followed, grow_matrices, grow_series

FRAME_S = 0.25
"""How long a frame lasts, seconds: with half a second until a training sends and a second between two questions of a
page, what was recorded is seen within two."""
IDLE_S = 15.0
"""What nobody asked for so long is no longer followed, seconds."""
MAX_RUNS = 100
"""Runs that a worker follows at once."""
_READS = frozenset(
    "run streams layouts scalar_names events resumes handling histograms latest evaluation findings".split()
)
"""Methods of the store whose first argument is the run that they read."""
_GROWING: dict[str, tuple[str, int, Callable[..., Any]]] = {
    "series": ("series_news", 1, grow_series),
    "matrices": ("matrices_news", 2, grow_matrices),
    "row": ("row_news", 2, grow_series),
}
"""Of methods whose answers grow: the one that tells what is new, where its cursor stands after the run, and how to put
the news in."""

_VERSION = ("run", (), ())
"""What holds the version among what was read."""


@dataclass(slots=True)
class _Following:
    answer: Followed[Any]
    asked: float


@dataclass(slots=True)
class _Watched:
    """A run: its frame, and what is followed from frame to frame."""

    began: float = -1e9
    """When the frame began."""
    read: dict[Hashable, Any] = field(default_factory=dict)
    """What was read in it."""
    following: dict[Hashable, _Following] = field(default_factory=dict)
    reading: threading.Lock = field(default_factory=threading.Lock)


class _Frames:
    """The reads of `store`, as its own methods; what they give must not be changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, _Watched] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return partial(self._read, name, method) if name in _READS or name in _GROWING else method

    def _read(
        self, name: str, method: Callable[..., Any], run: str, *rest: Any, **more: Any
    ) -> Any:
        watched, read = self._frame(run)
        key = (name, _hashable(rest), _hashable(sorted(more.items())))
        with watched.reading:
            # What a frame shows may be newer than the version that it tells, but never older: a page that has the
            # version asks for no more until that changes.
            if _VERSION not in read:
                read[_VERSION] = self._store.run(run)
            if key not in read:
                if name in _GROWING:
                    news, place, grow = _GROWING[name]
                    ask = getattr(self._store, news)
                    read[key] = _follow(
                        watched,
                        key,
                        lambda since: ask(run, *rest[:place], since, *rest[place:], **more),
                        grow,
                    )
                else:
                    read[key] = method(run, *rest, **more)
            return read[key]

    def _frame(self, run: str) -> tuple[_Watched, dict[Hashable, Any]]:
        now = time.monotonic()
        with self._lock:
            watched = self._runs.setdefault(run, _Watched())
            if now - watched.began >= FRAME_S:
                watched.began, watched.read = now, {}
                self._runs.move_to_end(run)
                while len(self._runs) > MAX_RUNS or self._oldest().began < now - IDLE_S:
                    self._runs.popitem(last=False)
            return watched, watched.read

    def _oldest(self) -> _Watched:
        return next(iter(self._runs.values()))


def _follow(
    watched: _Watched, key: Hashable, ask: Callable[[str], Any], grow: Callable[..., Any]
) -> Any:
    """What is known for `key` with its news."""
    if key not in watched.following:
        now = watched.began
        for other in [k for k, found in watched.following.items() if found.asked < now - IDLE_S]:
            del watched.following[other]
        watched.following[key] = _Following(Followed(ask, grow), now)
    found = watched.following[key]
    found.asked = watched.began
    return found.answer.read()


def framed(store: Store) -> Store:
    """`store`, with reads that show each run in frames."""
    return cast(Store, _Frames(store))


def _hashable(value: Any) -> Hashable:
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return cast(Hashable, value)
