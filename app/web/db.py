"""The store of the current request."""

import os
import threading

from flask import Flask, current_app

from trainvitals.app.settings import Settings
from trainvitals.app.store import Store


class Stores:
    """One open store for each thread of each process: a SQLite connection survives neither a fork nor a hand-over."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.database
        self._local = threading.local()
        self._lock = threading.Lock()
        self._opened: list[tuple[int, Store]] = []

    def get(self) -> Store:
        """This thread's store, opened at its first use. Raises StoreError."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.store = Store.open(self._path)
            self._local.pid = os.getpid()
            with self._lock:
                self._opened.append((os.getpid(), self._local.store))
        store: Store = self._local.store
        return store

    def close(self) -> None:
        """Close what this process opened."""
        with self._lock:
            opened, self._opened = self._opened, []
        for pid, store in opened:
            if pid == os.getpid():
                store.close()
        self._local = threading.local()


def register(app: Flask, settings: Settings) -> None:
    """Give `app` its stores; nothing is opened yet."""
    app.extensions["trainvitals_stores"] = Stores(settings)


def get_store() -> Store:
    """The store to use in this request. Raises StoreError."""
    stores: Stores = current_app.extensions["trainvitals_stores"]
    return stores.get()
