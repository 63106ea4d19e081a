"""The gunicorn worker: what it answers before the app is asked, it answers as JSON, as the API does.

A connection on which nothing is asked costs no thread, and the end of the worker does not wait for it.

Each run has a worker that is its home: the pages that follow it are brought there, so that what is new of the run is
made by one worker and not by each.
"""

import itertools
import json
import re
import selectors
import socket
import time
import zlib
from functools import partial
from typing import Any

from gunicorn import util
from gunicorn.http.errors import (
    InvalidHeader,
    InvalidHeaderName,
    InvalidHTTPVersion,
    InvalidRequestLine,
    InvalidRequestMethod,
    LimitRequestHeaders,
    LimitRequestLine,
)
from gunicorn.workers.gthread import ThreadWorker

from trainvitals.app.garbage import collect_seldom

_MALFORMED = (
    *(InvalidHeader, InvalidHeaderName, InvalidHTTPVersion),
    *(InvalidRequestLine, InvalidRequestMethod),
)


STAND_BACK_S = 0.003
"""How long another worker has to take a connection."""
_LIVE = re.compile(r"/api/v1/runs/([^/]+)/live")


def give_place(arbiter: Any, worker: Any) -> None:
    """Number a worker that is about to be forked: the smallest number that none of the others has."""
    taken = {other.place for other in arbiter.WORKERS.values()}
    worker.place = next(number for number in itertools.count() if number not in taken)


def send_home(worker: Any, request: Any) -> None:
    """Let a page that follows a run of another worker's come by a new connection next time, which may lead there.

    Who has come home stays, as connections are kept. Every worker answers whoever comes.
    """
    live = _LIVE.fullmatch(request.path)
    if live and zlib.crc32(live[1].encode()) % worker.cfg.workers != worker.place:
        request.force_close()
        worker.stands_back = True


class Worker(ThreadWorker):  # type: ignore[misc]
    """Threads, as gunicorn has them."""

    stands_back = False
    """Whether the next connection is left to another worker, if one takes it at once."""

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection; not the one that comes back after `send_home`.

        Where little goes on the system wakes the same worker each time, which would send the page away for ever.
        """
        if self.stands_back:
            self.stands_back = False
            time.sleep(STAND_BACK_S)
        super().accept(listener)

    def enqueue_req(self, conn: Any) -> None:
        """Let a thread answer; a new connection waits for its first byte beside those that are kept.

        Browsers open some ahead of need, and for each a thread would wait for seconds, and the worker's end with it.
        """
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.set_timeout()
        self.pending_conns.append(conn)
        answer = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, answer)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Have what was asked answered. A worker that is to end then closes the connections on which nothing was.

        A request that is on its way at that moment is lost unread, as it is when a kept connection's time is up:
        browsers and senders ask again.
        """
        super().wait_for_and_dispatch_events(timeout)
        if not self.alive:
            for conn in (*self.keepalived_conns, *self.pending_conns):
                conn.timeout = 0.0
            self.murder_keepalived()
            self.murder_pending()

    def init_process(self) -> None:
        """Answer requests until the end."""
        collect_seldom()
        super().init_process()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer a request that never reached the app. One that did is gunicorn's, as is what is rare."""
        match exc:
            case LimitRequestLine():
                status, code = "414 URI Too Long", "uri_too_long"
                message = f"The address is too long; at most {self.cfg.limit_request_line:,} bytes are taken."
            case LimitRequestHeaders():
                status, code = "431 Request Header Fields Too Large", "headers_too_large"
                message = "The headers are too large. Send fewer; in a browser, clear this site's cookies."
            case _ if req is None and isinstance(exc, _MALFORMED):
                status, code = "400 Bad Request", "bad_request"
                message = f"That is no HTTP request that can be answered: {exc}."
            case _:
                super().handle_error(req, client, addr, exc)
                return
        self.log.warning("Invalid request from ip=%s: %s", (addr or ("",))[0], exc)
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        head = (
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            util.write_nonblock(client, head.encode() + body)
        except OSError:
            self.log.debug("The client is gone already.")
