"""How long the training waits for its data: time inside `DataLoader` iterators."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter


class DataWait:
    """Times `next()` of every DataLoader of the process while attached."""

    def __init__(self, see: Callable[[Any, Any], None]) -> None:
        """`see` gets the iterator and each batch that it gives."""
        self._see = see
        self._original: Callable[[Any], Any] | None = None
        self._wrapper: Callable[[Any], Any] | None = None
        self._waited = 0.0
        self._seen = False
        self.total = 0.0
        """Seconds waited so far."""

    def attach(self) -> None:
        """Wrap the iterators' `__next__`, once for all of them."""
        if self._original is not None:
            return
        original = _BaseDataLoaderIter.__next__

        def timed_next(iterator: Any) -> Any:
            begin = perf_counter()
            try:
                batch = original(iterator)
            finally:
                waited = perf_counter() - begin
                self._waited += waited
                self.total += waited
                self._seen = True
            if self._original is not None:
                self._see(iterator, batch)
            return batch

        self._original, self._wrapper = original, timed_next
        _BaseDataLoaderIter.__next__ = timed_next  # type: ignore[method-assign,assignment]

    def take(self) -> float | None:
        """Seconds waited since the last call; None when no DataLoader was ever used."""
        waited, self._waited = self._waited, 0.0
        return waited if self._seen else None

    def detach(self) -> None:
        """Put the iterators back, unless someone else has wrapped them since."""
        if self._original is None:
            return
        if _BaseDataLoaderIter.__next__ is self._wrapper:
            _BaseDataLoaderIter.__next__ = self._original  # type: ignore[method-assign,assignment]
        self._original = None
