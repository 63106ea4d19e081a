"""The store of the current app."""

import threading

from flask import Flask, current_app

from trainvitals.app.settings import Settings
from trainvitals.app.store import Store


class LazyStore:
    """A store that is opened at its first use: an app may be made before its database can be reached."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.database
        self._lock = threading.Lock()
        self._store: Store | None = None

    def get(self) -> Store:
        """The store, for any thread. Raises StoreError."""
        with self._lock:
            if self._store is None:
                self._store = Store.open(self._path)
            return self._store

    def close(self) -> None:
        """Close it; the next use opens it again."""
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            store.close()


def register(app: Flask, settings: Settings) -> None:
    """Give `app` its store; nothing is opened yet."""
    app.extensions["trainvitals_store"] = LazyStore(settings)


def get_store() -> Store:
    """The store to use in this request. Raises StoreError."""
    lazy: LazyStore = current_app.extensions["trainvitals_store"]
    return lazy.get()
