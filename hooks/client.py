"""Batches over HTTP, with the standard library only. Loads no torch."""

import http.client
import json
import ssl
import urllib.parse
from enum import Enum
from typing import Any, cast

import msgspec

from trainvitals.hooks.wire import codec, limits
from trainvitals.hooks.wire.records import Batch

CONTENT_TYPE = "application/vnd.trainvitals.batch"
TIMEOUT = 5.0
"""Seconds to wait for the server at any one point."""


class Outcome(Enum):
    """What a server said to a batch."""

    STORED = "stored"
    REWIND = "rewind"
    SMALLER = "smaller"
    LATER = "later"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class Answer(msgspec.Struct, frozen=True):
    """A server's answer: the outcome, and what goes with it."""

    outcome: Outcome
    next: int = 0
    """For STORED and REWIND: the record that the server waits for."""
    wait: float = 0.0
    """For LATER: seconds that the server asked for; 0 when it named none."""
    message: str = ""


class _EncodedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """`records.Batch` with its records encoded already: the same bytes, without decoding the spool."""

    version: int
    run: str
    attempt: str
    rank: int
    first: int
    records: list[msgspec.Raw]


def encode(run: str, attempt: str, rank: int, first: int, payloads: list[bytes]) -> bytes:
    """The body of a batch made of encoded records."""
    batch = _EncodedBatch(
        version=limits.VERSION,
        run=run,
        attempt=attempt,
        rank=rank,
        first=first,
        records=[msgspec.Raw(payload) for payload in payloads],
    )
    return codec.encode_batch(cast(Batch, batch))


class Client:
    """One kept-alive connection to a server."""

    def __init__(self, url: str, token: str, timeout: float = TIMEOUT) -> None:
        """`url` is http(s)://host[:port][/base]. Raises ValueError for anything else."""
        self._parts = urllib.parse.urlsplit(url)
        if self._parts.scheme not in ("http", "https") or not self._parts.hostname:
            raise ValueError(f"A server's address looks like http://host:7070; got {url!r}.")
        self._token = token
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def post(self, run: str, body: bytes, *, behind: bool = False) -> Answer:
        """Send one batch. Never raises for what the network or the server does.

        behind: whether more is waiting after it, so that the server lets others go first.
        """
        path = f"{self._parts.path.rstrip('/')}/api/v1/runs/{run}/batches"
        headers = {"Content-Type": CONTENT_TYPE}
        if behind:
            headers[limits.BEHIND_HEADER] = "1"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        kept_alive = self._connection is not None
        try:
            return self._exchange(path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept_alive:
                return Answer(Outcome.UNREACHABLE, message=str(error) or type(error).__name__)
        try:  # an idle connection may have been closed by the other side: once more on a new one
            return self._exchange(path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(Outcome.UNREACHABLE, message=str(error) or type(error).__name__)

    def get(self, path: str, limit: int) -> bytes | None:
        """The body of a good answer of at most `limit` bytes; None for anything else. Never raises for the network."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request(
                "GET", f"{self._parts.path.rstrip('/')}{path}", headers=headers
            )
            response = self._connection.getresponse()
            content = response.read(limit + 1)
        except (OSError, http.client.HTTPException):
            self.close()
            return None
        if not response.isclosed() or response.will_close:
            self.close()
        return content if response.status == 200 and len(content) <= limit else None

    def _exchange(self, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", path, body, headers)
        response = self._connection.getresponse()
        content = response.read(1 << 20)
        if response.length:  # http.client takes the end of the connection for the end of the answer
            raise http.client.IncompleteRead(content, response.length)
        if not response.isclosed() or response.will_close:
            self.close()
        return _interpret(response.status, response.getheader("Retry-After"), content)

    def _connect(self) -> http.client.HTTPConnection:
        host = cast(str, self._parts.hostname)
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(
                host, self._parts.port, timeout=self._timeout, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(host, self._parts.port, timeout=self._timeout)

    def close(self) -> None:
        """Close the connection; the next `post` opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _interpret(status: int, retry_after: str | None, content: bytes) -> Answer:
    try:
        document: Any = json.loads(content)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    error = document.get("error")
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    message = message or f"the server answered {status}"
    if status == 200:
        following = document.get("next")
        if isinstance(following, int):
            return Answer(Outcome.STORED, next=following)
        return Answer(Outcome.REFUSED, message="what answers there is no trainvitals server")
    if status == 409 and isinstance(document.get("expected"), int):
        return Answer(Outcome.REWIND, next=document["expected"], message=message)
    if status == 413:
        return Answer(Outcome.SMALLER, message=message)
    if status in (408, 425, 429) or status >= 500:
        return Answer(Outcome.LATER, wait=_seconds(retry_after), message=message)
    return Answer(Outcome.REFUSED, message=message)


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or 0), 0.0), 60.0)
    except ValueError:  # a date is allowed too; our own server sends seconds
        return 0.0
