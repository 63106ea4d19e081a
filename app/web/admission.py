"""How much a worker takes in at once: what is in flight is bounded, so that load costs time and not memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, current_app

from trainvitals.app.settings import Settings
from trainvitals.app.web.errors import ApiError

IN_FLIGHT_BYTES = 32 << 20
"""Bytes of batches in work at once, as sent and unpacked together. One batch is taken whatever its size.

Taking a batch in needs a few times its bytes.
"""
RETRY_AFTER_S = 1
"""What a client is asked to wait for its turn, seconds."""


class Admission:
    """Counts the batches in flight of one process."""

    def __init__(self, batches: int) -> None:
        """`batches`: how many at once. Fewer than there are threads, as people ask for pages meanwhile."""
        self._limit = batches
        self._lock = threading.Lock()
        self._batches = 0
        self._bytes = 0
        self._behind = False

    @contextmanager
    def hold(self, size: int, *, behind: bool) -> Iterator[None]:
        """Take in a batch of `size` bytes while the block runs. Raises ApiError 429 when there is no room for it.

        behind: whether its sender has a lot to catch up on. Of those there is one at a time, and only where there
        is room for others beside it: who is up to date goes first.
        """
        self._enter(size, behind)
        try:
            yield
        finally:
            with self._lock:
                self._batches -= 1
                self._bytes -= size
                self._behind = self._behind and not behind

    def _enter(self, size: int, behind: bool) -> None:
        with self._lock:
            full = self._batches >= self._limit
            large = self._batches > 0 and self._bytes + size > IN_FLIGHT_BYTES
            late = behind and (self._behind or self._batches >= max(self._limit // 2, 1))
            if full or large or late:
                raise ApiError(
                    429,
                    "too_many_batches",
                    "The server is busy with other batches. Nothing was stored; send this one again in "
                    f"{RETRY_AFTER_S} s.",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                )
            self._batches += 1
            self._bytes += size
            self._behind = self._behind or behind


def register(app: Flask, settings: Settings) -> None:
    """Give `app` its admission; workers that are forked later count for themselves."""
    app.extensions["trainvitals_admission"] = Admission(max(settings.threads // 2, 1))


def get_admission() -> Admission:
    """The admission of the current app."""
    admission: Admission = current_app.extensions["trainvitals_admission"]
    return admission
