"""`trainvitals serve`: gunicorn workers for the pages and the API, one evaluator process beside them."""

import contextlib
import dataclasses
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from trainvitals.app.settings import Settings, bracketed
from trainvitals.app.store import Store
from trainvitals.app.web import create_app
from trainvitals.app.web.metrics import SHARED
from trainvitals.app.worker import give_place, send_home

logger = logging.getLogger(__name__)

GRACE_S = 5
"""How long requests and the evaluator may take to end, seconds."""
LONGEST_PAUSE_S = 30.0


class ServeError(Exception):
    """The server can't start. The message says why and what to do."""


def serve(settings: Settings, announce: Callable[[str], None] = print) -> None:
    """Serve until SIGINT or SIGTERM, then raise SystemExit(0).

    `announce` gets one line with the real address once connections are taken. Raises ServeError.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    listener = prepare(settings)
    counts = share_counts()
    settings = dataclasses.replace(settings, port=listener.getsockname()[1])
    supervisor = Supervisor(
        [
            *(sys.executable, "-m", "trainvitals.app.evaluator"),
            *("--database", str(settings.database), "--parent", str(os.getpid())),
        ],
        os.environ | settings.to_env(),
    )

    owner = os.getpid()

    def ready(_: object) -> None:
        supervisor.start()
        address = f"http://{bracketed(settings.host)}:{settings.port}"
        announce(f"trainvitals: serving {address} (database {settings.database})")

    try:
        Server(settings, listener, when_ready=ready).run()
    finally:
        supervisor.stop()
        if os.getpid() == owner:  # a worker ends here, too
            shutil.rmtree(counts, ignore_errors=True)


def prepare(settings: Settings) -> socket.socket:
    """Check the settings, create the database, bind the port: everything that may go wrong. Raises ServeError."""
    if not settings.is_loopback and not settings.token:
        raise ServeError(
            f"Refusing to bind {settings.host} without a token: everyone in the network could write and "
            "delete. Set one with --token or TRAINVITALS_TOKEN, or bind 127.0.0.1."
        )
    try:
        Store.open(settings.database).close()
    except Exception as error:  # the file may be anything, and an upgrade reads all of it
        folder = settings.database.absolute().parent
        why = f"{error}. The folder {folder} can't be written" if _is_fixed(folder) else str(error)
        raise ServeError(f"The database {settings.database} can't be used: {why}.") from error
    return bind(settings.host, settings.port)


def _is_fixed(folder: Path) -> bool:
    return folder.is_dir() and not os.access(folder, os.W_OK)


def share_counts() -> Path:
    """Make the folder in which the workers share what they count; see `web.metrics`."""
    os.environ[SHARED] = tempfile.mkdtemp(prefix="trainvitals-counts-", dir=_memory())
    return Path(os.environ[SHARED])


def _memory() -> str | None:
    """A folder whose files are in memory; None where there is none to write to."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def forget(pid: int) -> None:
    """Take what a worker that ended was at work on out of the counts; what it has done stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to `host` and `port` (0: any free one). Raises ServeError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise ServeError(f"The address {host!r} can't be bound: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ServeError(
            f"Port {port} on {host} can't be bound: {error.strerror}. Does trainvitals or something else "
            "run there already? Choose another with --port (0 takes a free one)."
        ) from error
    return listener


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with threads, run in this process instead of from its own command line."""

    def __init__(
        self, settings: Settings, listener: socket.socket, when_ready: Callable[[object], None]
    ) -> None:
        self._settings = settings
        self._descriptor = listener.detach()  # gunicorn closes it
        self._when_ready = when_ready
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        wanted: dict[str, Any] = {
            "bind": f"fd://{self._descriptor}",
            "worker_class": "trainvitals.app.worker.Worker",
            "workers": self._settings.workers,
            "threads": self._settings.threads,
            # Safe: making the app opens no database, and errors in it show once and at once.
            "preload_app": True,
            "timeout": 60,
            "graceful_timeout": GRACE_S,
            "keepalive": 15,
            "limit_request_line": 8190,  # the longest layer name, percent-encoded
            "loglevel": "warning",
            "errorlog": "-",
            "accesslog": None,
            "worker_tmp_dir": _memory(),
            "control_socket_disable": True,
            "when_ready": self._when_ready,
            "pre_fork": give_place,
            "pre_request": send_home,
            "child_exit": lambda _, worker: forget(worker.pid),
        }
        for name, value in wanted.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application."""
        return create_app(self._settings)


class Supervisor:
    """Keeps one child process running until `stop`.

    The child watches for this process's end itself, for the case that this one is killed.
    """

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._command = command
        self._env = env
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name="evaluator-watch", daemon=True)
        self._owner = os.getpid()

    def start(self) -> None:
        """Start the child and watch it. To be called before this process forks others.

        `Popen` waits for the end of a pipe, which a process that is forked at that moment would hold open.
        """
        self._process = self._spawn()
        self._thread.start()

    def _spawn(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C goes to this process, which ends the child in good order.
        return subprocess.Popen(self._command, env=self._env, start_new_session=True)

    def stop(self) -> None:
        """End the child; nothing happens in a forked copy of this process."""
        if os.getpid() != self._owner or not self._thread.is_alive():
            return
        self._stopping.set()
        deadline = time.monotonic() + GRACE_S
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        self._thread.join(max(deadline - time.monotonic(), 0))
        if process is not None and self._thread.is_alive():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            self._thread.join(1)

    def _watch(self) -> None:
        pause = 1.0
        while self._process is not None:
            started = time.monotonic()
            self._process.wait()
            if self._stopping.is_set():
                return
            pause = 1.0 if time.monotonic() - started > 60 else min(pause * 2, LONGEST_PAUSE_S)
            logger.error("The evaluator ended; it starts again in %.0f s.", pause)
            if self._stopping.wait(pause):
                return
            self._process = self._spawn()
            if self._stopping.is_set():
                self._process.terminate()
