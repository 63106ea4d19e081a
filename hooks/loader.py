"""How long the training waits for its data: time inside `DataLoader` iterators."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter

from trainvitals.hooks.interception import Replaced


class DataWait:
    """Times `next()` of every DataLoader of the process while attached."""

    def __init__(self, see: Callable[[Any, Any], None]) -> None:
        """`see` gets the iterator and each batch that it gives."""
        self._see = see
        self._replaced = Replaced(_BaseDataLoaderIter, "__next__", self._timed)
        self._waited = 0.0
        self._seen = False
        self.total = 0.0
        """Seconds waited so far."""

    def attach(self) -> None:
        """Time the iterators from now on."""
        self._replaced.put()

    def detach(self) -> None:
        """Put torch's own function back."""
        self._replaced.take_back()

    def aside(self) -> AbstractContextManager[None]:
        """With torch's own function for a while."""
        return self._replaced.aside()

    def take(self) -> float | None:
        """Seconds waited since the last call; None when no DataLoader was ever used."""
        waited, self._waited = self._waited, 0.0
        return waited if self._seen else None

    def _timed(self, original: Callable[..., Any], mine: Replaced) -> Callable[..., Any]:
        def timed_next(iterator: Any) -> Any:
            if not mine.active:
                return original(iterator)
            begin = perf_counter()
            try:
                batch = original(iterator)
            finally:
                waited = perf_counter() - begin
                self._waited += waited
                self.total += waited
                self._seen = True
            if mine.active:  # a data set may have ended the watch
                self._see(iterator, batch)
            return batch

        return timed_next
