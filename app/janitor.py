"""Keeps the database as the retention policy says, bit by bit, beside the evaluator."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from trainvitals.app.retention import Policy
from trainvitals.app.store import Store, StoreError
from trainvitals.app.store.retention import Removal

logger = logging.getLogger(__name__)

PERIOD_S: Final = 60.0
"""Pause between two looks at what is due."""
REST_S: Final = 0.05
"""Pause between two transactions: whoever waited for the database meanwhile is served."""
SLACK: Final = 0.1
"""Share of the file that may be free where nothing was removed: what comes in next goes there."""


class Janitor:
    """Removes what is due in one database. Several at once do no harm."""

    def __init__(self, store: Store, policy: Policy) -> None:
        self._store = store
        self._policy = policy

    def run_forever(self, stop: threading.Event) -> None:
        """Remove what is due until `stop` is set."""
        while not stop.is_set():
            now = time.time()
            try:
                removed = self.tick(now, stop)
                self._store.sign("retention", now, removed=removed, error="")
            except StoreError as error:
                logger.exception("What is due could not be removed; the next try comes soon.")
                self._tell(now, str(error))
            stop.wait(PERIOD_S)

    def tick(self, now: float, stop: threading.Event) -> int:
        """Remove what is due at `now` (Unix seconds), and give the room back; how many things were removed."""
        return clear(self._store, self._store.removals(self._policy, now), now, stop.wait)

    def _tell(self, now: float, error: str) -> None:
        try:
            self._store.sign("retention", now, removed=0, error=error)
        except StoreError:
            logger.warning("The database takes no sign either.")


def clear(store: Store, due: Sequence[Removal], now: float, rest: Callable[[float], object]) -> int:
    """Remove what is due and give the room back; how many things were removed.

    `rest` is called with `REST_S` after each transaction; when its answer is true, that is the end.
    """
    for count, removal in enumerate(due):
        if any(rest(REST_S) for _ in store.remove(removal, now)):
            return count
    info = store.info()
    if due or info.free_bytes > SLACK * info.bytes:
        any(rest(REST_S) for _ in store.shrink())
    return len(due)
