"""What comes in by address: ids and query parameters, checked, with errors that say what was expected."""

from collections.abc import Collection
from typing import TypeVar

from flask import request

from trainvitals.app.store.types import Run
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.hooks.wire import limits

Option = TypeVar("Option", bound=str)


def known_run(run_id: str) -> Run:
    """The run of that id. Raises ApiError 404."""
    if limits.is_id(run_id) and (run := get_store().run(run_id)) is not None:
        return run
    raise ApiError(
        404,
        "no_such_run",
        f"There is no run {run_id[:80]!r}. GET /api/v1/runs lists those there are.",
    )


def whole(name: str, default: int, low: int, high: int) -> int:
    """The query parameter `name` as a whole number from `low` to `high`. Raises ApiError 400."""
    value = optional_whole(name, low, high)
    return default if value is None else value


def optional_whole(name: str, low: int = 0, high: int = limits.MAX_STEP) -> int | None:
    """Like `whole`, None when the parameter is missing or empty."""
    text = request.args.get(name, "").strip()
    if not text:
        return None
    # int() also takes "1_000" and digits of other scripts, and is slow for very long ones
    if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) <= 20:
        value = int(text)
        if low <= value <= high:
            return value
    raise ApiError(
        400,
        "invalid_parameter",
        f"{name}={text[:40]!r} is not possible; expected a whole number from {low:,} to {high:,}.",
    )


def step_range() -> tuple[int | None, int | None]:
    """The query parameters `start` and `stop` (steps; the stop is left out). Raises ApiError 400."""
    start, stop = optional_whole("start"), optional_whole("stop")
    if start is not None and stop is not None and stop <= start:
        raise ApiError(
            400, "invalid_parameter", f"start={start} and stop={stop}: expected start before stop."
        )
    return start, stop


def choice(name: str, options: Collection[Option], default: Option | None = None) -> Option:
    """The query parameter `name`, one of `options`. Raises ApiError 400."""
    text = request.args.get(name, default)
    for option in options:
        if option == text:
            return option
    given = "is missing" if text is None else f"= {text[:80]!r} is not possible"
    raise ApiError(
        400,
        "invalid_parameter",
        f"{name} {given}; expected one of: {', '.join(list(options)[:50]) or '(none recorded yet)'}.",
    )
