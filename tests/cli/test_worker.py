"""The worker has no time for connections on which nothing is asked."""

import contextlib
import os
import signal
import socket
import threading

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gthread

from trainvitals.app.worker import Worker

HOUR = 3600
ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Running(Worker):
    """A worker in a thread of this process, with all patience that gunicorn knows."""

    def __init__(self, listener, app, threads):
        cfg = Config()
        for name in ("keepalive", "graceful_timeout"):
            cfg.set(name, HOUR)
        cfg.set("threads", threads)
        super().__init__(1, os.getppid(), [listener], None, HOUR, cfg, Logger(cfg))
        self.wsgi, self.place = app, 0
        self.tpool = self.get_thread_pool()
        self.poller = gthread.selectors.DefaultSelector()
        self.method_queue.init()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def end(self):
        self.handle_exit(signal.SIGTERM, None)

    def has_ended(self):
        self.thread.join(20)
        return not self.thread.is_alive()


@pytest.fixture
def start(monkeypatch):
    """Start a worker; also connect to it."""
    monkeypatch.setattr(gthread, "STOP_KEEPALIVE_LINGER", HOUR, raising=False)
    monkeypatch.setattr(gthread, "DEFAULT_WORKER_DATA_TIMEOUT", HOUR)
    with contextlib.ExitStack() as stack:

        def begin(app, threads=4):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            worker = Running(listener, app, threads)
            stack.callback(worker.tmp.close)
            stack.callback(worker.has_ended)
            stack.callback(worker.end)

            def connect(said=b""):
                made = socket.create_connection(listener.getsockname(), timeout=20)
                stack.callback(made.close)
                made.sendall(said)
                return made

            return worker, connect

        yield begin


def ok(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


def answered(connection):
    heard = b""
    while not heard.endswith(b"ok") and (more := connection.recv(4096)):
        heard += more
    return heard.endswith(b"ok")


def test_a_worker_that_is_to_end_waits_for_no_connection_on_which_nothing_is_asked(start):
    worker, connect = start(ok)
    silent, kept = connect(), connect(ASKED)
    assert answered(kept)
    worker.end()
    assert worker.has_ended()
    assert silent.recv(1) == kept.recv(1) == b""


def test_a_worker_that_is_to_end_answers_what_was_asked(start):
    going, go_on = threading.Event(), threading.Event()

    def slow(environ, start_response):
        going.set()
        assert go_on.wait(20)
        return ok(environ, start_response)

    worker, connect = start(slow)
    silent, asking = connect(), connect(ASKED)  # taken in one after the other
    assert going.wait(20)
    worker.end()
    assert silent.recv(1) == b""
    go_on.set()
    assert answered(asking)
    asking.close()
    assert worker.has_ended()


def test_connections_that_say_nothing_take_no_thread(start):
    _, connect = start(ok, threads=1)
    for _ in range(3):
        connect()
    assert answered(connect(ASKED))
