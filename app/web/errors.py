"""One shape for every error: JSON under /api, a page elsewhere; never a traceback or a secret."""

import logging
import secrets
import sqlite3

from flask import Flask, Response, make_response, render_template, request
from markupsafe import escape
from werkzeug.exceptions import HTTPException

from trainvitals.app.store import (
    Conflict,
    InvalidRecord,
    NotFound,
    RunDeleted,
    SequenceGap,
    StoreError,
)
from trainvitals.app.web.serialize import json_response
from trainvitals.hooks.wire.codec import TooLarge, UnknownVersion, WireError

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 2
"""What a client is asked to wait while the database is busy, seconds."""

MAX_UNREAD_BYTES = 32 << 20
"""How much of a refused body is still read, bytes."""

_MACHINE_PATHS = ("/api/", "/healthz", "/readyz", "/metrics", "/version")


class ApiError(Exception):
    """An error to answer with: HTTP status, a code for programs, a message for people.

    `extra` holds further top-level keys of the JSON answer, `headers` further headers.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        extra: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra or {}
        self.headers = headers or {}


class LoginNeeded(ApiError):  # noqa: N818 - reads as what it says
    """A request without the token it needs: a 401 for programs, the login page for people."""


def register(app: Flask) -> None:
    """Let `app` answer every exception by `answer`."""
    app.register_error_handler(Exception, _handle)


def _handle(error: Exception) -> Response:
    return answer(translate(error))


def answer(error: ApiError) -> Response:
    """The response for `error`: JSON for programs, a page for people."""
    if wants_json():
        body = {"error": {"code": error.code, "message": error.message}, **error.extra}
        response = json_response(body, error.status)
    else:
        response = make_response(_page(error), error.status)
    response.headers.update(error.headers)
    _read_rest()
    return response


def _read_rest() -> None:
    """Take what the client is still sending: closing on unread data resets the connection, answer and all."""
    if not request.content_length and not request.environ.get("wsgi.input_terminated"):
        return
    left = MAX_UNREAD_BYTES
    while left > 0 and (chunk := request.environ["wsgi.input"].read(64 << 10)):
        left -= len(chunk)


def wants_json() -> bool:
    """Whether the current request came for data, not for a page."""
    return request.path.startswith(_MACHINE_PATHS)


def translate(error: Exception) -> ApiError:
    """What `error` means to the client. An unexpected one is logged under an id, which is all it tells."""
    match error:
        case ApiError():
            return error
        case HTTPException():
            return _from_http(error)
        case TooLarge():
            return ApiError(413, "too_large", str(error))
        case UnknownVersion():
            return ApiError(400, "unknown_version", str(error))
        case WireError():
            return ApiError(400, "invalid_batch", str(error))
        case SequenceGap():
            return ApiError(
                409,
                "sequence_gap",
                f"Records are missing before this batch; expected number {error.expected}. "
                "Send again from there.",
                extra={"expected": error.expected},
            )
        case RunDeleted():
            return ApiError(410, "run_deleted", str(error))
        case InvalidRecord():
            return ApiError(422, "invalid_record", str(error))
        case Conflict():
            return ApiError(409, "conflict", str(error))
        case NotFound():
            return ApiError(404, "not_found", str(error) or "There is nothing here.")
        case sqlite3.Error() | StoreError():
            return _from_database(error)
        case _:
            return _unexpected(error)


def _from_http(error: HTTPException) -> ApiError:
    code = error.code or 500
    headers = {}
    match code:
        case 404:
            message = f"There is nothing at {request.path[:200]!r}. Check the address."
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            headers = {"Allow": allowed}
            message = f"{request.method} is not possible here; expected {allowed}."
        case 413:
            message = (
                f"The request is too large; at most {request.max_content_length:,} bytes are taken. "
                "Send less at a time."
            )
        case _:
            message = error.description or "The request can't be answered."
    return ApiError(code, _code_name(error), message, headers=headers)


def _code_name(error: HTTPException) -> str:
    if error.code == 413:
        return "too_large"
    return error.name.lower().replace(" ", "_").replace("'", "")


def _from_database(error: Exception) -> ApiError:
    text = str(error.__cause__ or error).lower()
    if "locked" in text or "busy" in text:
        return ApiError(
            503,
            "busy",
            "The database is busy. Nothing was stored; try again in a moment.",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )
    if "full" in text or "readonly" in text or "disk i/o" in text:
        logger.error("The database can't be written: %s", error)
        return ApiError(
            503,
            "storage",
            "The server can't write its database (disk full or read-only). Nothing was stored.",
            headers={"Retry-After": "30"},
        )
    return _unexpected(error)


def _unexpected(error: Exception) -> ApiError:
    number = secrets.token_hex(4)
    logger.error("Error %s at %s %s", number, request.method, request.path, exc_info=error)
    return ApiError(
        500,
        "internal_error",
        f"The server failed at this. Try again; if it stays so, its log has the details under {number}.",
    )


def _page(error: ApiError) -> str:
    try:
        return render_template("error.html", status=error.status, message=error.message)
    except Exception:  # whatever the page reads: it must not hide the error that it is about
        logger.exception("The error page can't be rendered.")
        return (
            "<!doctype html><meta charset=utf-8><title>trainvitals</title>"
            f'<h1>{error.status}</h1><p>{escape(error.message)}</p><p><a href="/">All runs</a></p>'
        )
