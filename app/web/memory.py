"""What was made of a run, kept until the run changes: a hundred pages that watch it have it made once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from trainvitals.app.store import Store
from trainvitals.app.store.types import Run

T = TypeVar("T")


@dataclass(slots=True)
class _Entry:
    version: int | None = None
    value: Any = None
    making: threading.Lock = field(default_factory=threading.Lock)


class Memory:
    """Values by run and subject, of each the newest; those that were not asked for longest go first."""

    def __init__(self, most: int) -> None:
        """most: values of each store that are kept."""
        self._most = most
        self._lock = threading.Lock()
        self._entries: WeakKeyDictionary[Store, OrderedDict[Hashable, _Entry]] = WeakKeyDictionary()

    def get(self, store: Store, run: Run, what: Hashable, make: Callable[[], T]) -> T:
        """What `make` made for this version of the run. Who asks while it is being made waits for it."""
        return self.renew(store, run, what, lambda _: make())

    def renew(self, store: Store, run: Run, what: Hashable, make: Callable[[T | None], T]) -> T:
        """Like `get`; `make` gets what it made for an earlier version, None for the first time."""
        with self._lock:
            entries = self._entries.setdefault(store, OrderedDict())
            entry = entries.setdefault((run.id, what), _Entry())
            entries.move_to_end((run.id, what))
            if len(entries) > self._most:
                entries.popitem(last=False)
        with entry.making:
            if entry.version != run.version:
                entry.value = make(entry.value)
                entry.version = run.version
            return cast(T, entry.value)
