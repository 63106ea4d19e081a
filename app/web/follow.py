"""Matrices of runs that go on, kept and grown by what is new: a live page makes the server read no step twice."""

import threading
from functools import lru_cache
from typing import Any

import numpy as np

from trainvitals.app.store import Store
from trainvitals.app.store.types import Matrix
from trainvitals.hooks.wire.records import GroupKind

MAX_KEPT = 24
"""Matrices that a worker keeps, the least asked for goes first: a map has four. Of 200 layers, 1.3 MB each."""


class _Followed:
    """One statistic of a run under one look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: Matrix | None = None
        self._cursor = ""

    def read(self, store: Store, run: str, kind: GroupKind, key: str, look: dict[str, Any]) -> Matrix:
        with self._lock:
            news = store.matrix_news(run, kind, key, self._cursor, **look)
            whole = news.whole or self._known is None
            self._known = news.data if whole else _grown(self._known, news.data)
            self._cursor = news.cursor
            return self._known


def matrix(
    store: Store,
    run: str,
    kind: GroupKind,
    key: str,
    start: int | None,
    stop: int | None,
    buckets: int,
) -> Matrix:
    """What `Store.matrix` gives, read from where the last answer to the same question ended."""
    look = {"start": start, "stop": stop, "buckets": buckets}
    return _followed(store, run, key, start, stop, buckets).read(store, run, kind, key, look)


@lru_cache(MAX_KEPT)
def _followed(
    store: Store, run: str, key: str, start: int | None, stop: int | None, buckets: int
) -> _Followed:
    return _Followed()


def _grown(known: Matrix, news: Matrix) -> Matrix:
    """`known` with `news` in the place of its buckets from their first step on."""
    if not len(news.steps):
        return known
    kept = int(np.searchsorted(known.steps, news.steps[0]))
    parts = ("min", "max", "mean", "nonfinite", "recorded")
    grown = {
        name: np.concatenate([getattr(known, name)[:, :kept], getattr(news, name)], axis=1)
        for name in parts
    }
    return Matrix(news.rows, np.concatenate([known.steps[:kept], news.steps]), **grown)
