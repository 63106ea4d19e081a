"""What was made of a run, kept until the run changes: a hundred pages that watch it have it made once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from trainvitals.app.store import Store
from trainvitals.app.store.types import Run

T = TypeVar("T")

_turn = threading.RLock()
"""Values are made one at a time: threads that make some at once take the interpreter from each other, and all are late.
What is made of another value asks for that one in its own turn."""


@dataclass(frozen=True, slots=True)
class _Made:
    version: int
    value: Any


class Memory:
    """Values by run and subject, of each the newest; those that were made longest ago go first."""

    def __init__(self, most: int) -> None:
        """most: values of each store that are kept."""
        self._most = most
        self._lock = threading.Lock()
        self._kept: WeakKeyDictionary[Store, OrderedDict[Hashable, _Made]] = WeakKeyDictionary()

    def get(self, store: Store, run: Run, what: Hashable, make: Callable[[], T]) -> T:
        """What `make` made for this version of the run. Who asks while it is being made waits for it."""
        return self.renew(store, run, what, lambda _: make())

    def renew(self, store: Store, run: Run, what: Hashable, make: Callable[[T | None], T]) -> T:
        """Like `get`; `make` gets what it made for an earlier version, None for the first time."""
        key = (run.id, what)
        made = self._look(store, key)
        if made is None or made.version != run.version:
            with _turn:
                made = self._look(store, key)  # somebody may have made it meanwhile
                if made is None or made.version != run.version:
                    made = _Made(run.version, make(None if made is None else made.value))
                    self._keep(store, key, made)
        return cast(T, made.value)

    def _look(self, store: Store, key: Hashable) -> _Made | None:
        with self._lock:
            return self._kept.setdefault(store, OrderedDict()).get(key)

    def _keep(self, store: Store, key: Hashable, made: _Made) -> None:
        with self._lock:
            kept = self._kept[store]
            kept[key] = made
            kept.move_to_end(key)
            while len(kept) > self._most:
                kept.popitem(last=False)
