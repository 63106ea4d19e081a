"""Answers of the store that are followed by cursor: each reading brings what changed since the one before."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from trainvitals.app.store.types import Matrix, News, Series

T = TypeVar("T")


class Followed(Generic[T]):
    """One answer, kept up to date. One thread at a time."""

    def __init__(self, ask: Callable[[str], News[T]], grow: Callable[[T, T], T | None]) -> None:
        """ask: what changed since a cursor ("": all). grow: what was known with news in it, None if they don't fit."""
        self._ask = ask
        self._grow = grow
        self._cursor = ""
        self._data: T | None = None

    def read(self) -> T:
        """The answer as it is now; not to be changed. What was given before stays as it was."""
        news = self._ask(self._cursor)
        grown = None
        if self._data is not None and not news.whole:
            grown = self._grow(self._data, news.data)
            if grown is None:
                news = self._ask("")
        self._data = news.data if grown is None else grown
        self._cursor = news.cursor
        return self._data


def grow_series(known: dict[str, Series], news: dict[str, Series]) -> dict[str, Series]:
    """`known` with each curve of `news` in place of its own points from the first new one on."""
    return {
        name: _grown(known[name], more) if name in known and len(known[name].steps) else more
        for name, more in news.items()
    } | {name: series for name, series in known.items() if name not in news}


def _grown(known: Series, more: Series) -> Series:
    if not len(more.steps):
        return known
    kept = int(np.searchsorted(known.steps, more.steps[0]))
    parts = ("steps", "min", "max", "mean", "last", "nonfinite")
    return Series(
        *(np.concatenate([getattr(known, part)[:kept], getattr(more, part)]) for part in parts)
    )


def grow_matrices(known: dict[str, Matrix], news: dict[str, Matrix]) -> dict[str, Matrix] | None:
    """`known` with the buckets of `news` in place of its own from the first new one on; None when rows have changed."""
    if any(known[key].rows != more.rows for key, more in news.items()):
        return None
    return {key: _widened(known[key], more) for key, more in news.items()}


def _widened(known: Matrix, news: Matrix) -> Matrix:
    if not len(news.steps):
        return known
    kept = int(np.searchsorted(known.steps, news.steps[0]))
    parts = ("min", "max", "mean", "nonfinite", "recorded")
    return Matrix(
        known.rows,
        np.concatenate([known.steps[:kept], news.steps]),
        *(
            np.concatenate([getattr(known, part)[:, :kept], getattr(news, part)], axis=1)
            for part in parts
        ),
    )
