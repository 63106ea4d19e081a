"""The store of the current app."""

import threading

from flask import Flask, current_app, g

from trainvitals.app.settings import Settings
from trainvitals.app.store import Store
from trainvitals.app.web.frames import framed


class LazyStore:
    """A store that is opened at its first use: an app may be made before its database can be reached."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.database
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._framed: Store | None = None

    def get(self) -> Store:
        """The store, for any thread. Raises StoreError."""
        with self._lock:
            if self._store is None:
                self._store = Store.open(self._path)
                self._framed = framed(self._store)
            return self._store

    def get_framed(self) -> Store:
        """The store as `frames` shows it. Raises StoreError."""
        store = self.get()
        return self._framed or store

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
    return lazy.get_framed() if g.get("framed") else lazy.get()


def show_frames() -> None:
    """Let this request see runs in frames."""
    g.framed = True
