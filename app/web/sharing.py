"""One answer for everybody who asks the same within a moment: a hundred open pages cost about as much as a few.

Pages ask again every second. An answer is given again for a time in proportion to what it took to make, so that no
question takes more than a small share of a worker however many ask it, and one that is quick to answer is always fresh.
"""

import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from flask import Flask, Response, current_app, make_response, request

from trainvitals.app.web.db import show_frames
from trainvitals.app.web.security import held_role

AGAIN = 15.0
"""For how many times the time that it took to make it an answer is given again."""
LONGEST_S = 0.7
"""But for no longer than this, so that what was stored is seen within two seconds."""
MAX_BYTES = 64 << 20
"""Of answers kept by a worker."""
MAX_ANSWERS = 1000
SHARED = ("figures_api.",)
"""How endpoints begin: what open pages ask for. Programs that ask `api` see what they have just sent."""


@dataclass(slots=True)
class _Answer:
    making: threading.Lock = field(default_factory=threading.Lock)
    made: float = -1e9
    """When, by the monotonic clock."""
    until: float = -1e9
    body: bytes = b""
    etag: str = ""
    mimetype: str = ""


class Answers:
    """The answers of one worker, by the question: who asks with what rights, for which address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, ...], _Answer] = OrderedDict()
        self._bytes = 0

    def respond(self, key: tuple[str, ...], make: Callable[[], Response]) -> Response:
        """The answer to the question `key`: a recent one, or what `make` makes. Only those of status 200 are kept."""
        with self._lock:
            answer = self._kept.setdefault(key, _Answer())
            self._kept.move_to_end(key)
        now = time.monotonic()
        if now < answer.until:
            return _copy(answer)
        recent = now - answer.made < LONGEST_S
        if not answer.making.acquire(blocking=not recent):
            return _copy(answer)  # someone is about to have a newer one
        try:
            if time.monotonic() < answer.until:  # made while this one waited
                return _copy(answer)
            return self._make(key, answer, make)
        finally:
            answer.making.release()

    def _make(
        self, key: tuple[str, ...], answer: _Answer, make: Callable[[], Response]
    ) -> Response:
        begin = time.monotonic()
        response = make()
        if response.status_code != 200:
            with self._lock:
                self._drop(key)
            return response
        before, body = len(answer.body), response.get_data()
        # Body first: others read it without the lock.
        answer.body, answer.mimetype = body, response.mimetype or ""
        answer.etag = f"{zlib.crc32(body):08x}-{len(body):x}"
        answer.made = begin
        answer.until = begin + min(AGAIN * (time.monotonic() - begin), LONGEST_S)
        with self._lock:
            if self._kept.get(key) is answer:
                self._bytes += len(body) - before
            while self._bytes > MAX_BYTES or len(self._kept) > MAX_ANSWERS:
                self._drop(next(iter(self._kept)))
        return _copy(answer)

    def _drop(self, key: tuple[str, ...]) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self._bytes -= len(dropped.body)


def _copy(answer: _Answer) -> Response:
    response = Response(answer.body, mimetype=answer.mimetype)
    response.set_etag(answer.etag)
    response.make_conditional(request)
    return response


def register(app: Flask) -> None:
    """Share the answers of the addresses that open pages ask again and again. Call it when all routes are there."""
    app.extensions["trainvitals_answers"] = Answers()
    for endpoint, view in app.view_functions.items():
        if endpoint.startswith(SHARED):
            app.view_functions[endpoint] = _shared(view)


def _shared(view: Callable[..., Any]) -> Callable[..., Response]:
    @wraps(view)
    def respond(**arguments: Any) -> Response:
        if request.method not in ("GET", "HEAD"):
            return make_response(view(**arguments))
        show_frames()
        answers: Answers = current_app.extensions["trainvitals_answers"]
        key = (str(held_role()), request.host, request.full_path)
        return answers.respond(key, lambda: make_response(view(**arguments)))

    return respond
