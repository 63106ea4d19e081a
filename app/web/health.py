"""`GET /readyz`: whether this server can do its work, and if not, why."""

import shutil
import time
from collections.abc import Callable

from flask import Blueprint, Response
from msgspec import Struct

from trainvitals.app.store import Store, StoreError
from trainvitals.app.web.db import get_store
from trainvitals.app.web.serialize import json_response

bp = Blueprint("health", __name__)

ALIVE_S = 60.0
"""An evaluator that was silent for longer is taken for dead, seconds. It gives a sign every 5."""
MIN_DISK_BYTES = 200_000_000


class Check(Struct, frozen=True):
    """One thing that was looked at."""

    ok: bool
    message: str


@bp.get("/readyz")
def readyz() -> Response:
    """Whether the database can be written and has the right schema, the disk has room, and the rules are at work."""
    try:
        store = get_store()
        checks = {name: _look(check, store) for name, check in _CHECKS.items()}
    except StoreError as error:
        checks = {"database": Check(False, str(error))}
    ready = all(check.ok for check in checks.values())
    return json_response({"ready": ready, "checks": checks}, 200 if ready else 503)


def free_disk_bytes(store: Store) -> int:
    """Room on the disk that the database is on."""
    return shutil.disk_usage(store.path.parent).free


def _look(check: Callable[[Store], Check], store: Store) -> Check:
    try:
        return check(store)
    except (StoreError, OSError) as error:
        return Check(False, str(error))


def _database(store: Store) -> Check:
    store.probe()
    return Check(True, "can be written")


def _schema(store: Store) -> Check:
    found, known = store.info().schema, store.schema
    if found == known:
        return Check(True, f"version {found}")
    return Check(
        False, f"version {found}, this release has {known}: bring the server to that release"
    )


def _disk(store: Store) -> Check:
    free = free_disk_bytes(store)
    text = f"{free / 1e9:,.1f} GB free"
    if free >= MIN_DISK_BYTES:
        return Check(True, text)
    return Check(False, f"{text}: delete runs, or set TRAINVITALS_RETENTION")


def _evaluator(store: Store) -> Check:
    sign = store.signs().get("evaluator")
    if sign is None:
        return Check(False, "never seen: is `python -m trainvitals.app.evaluator` running?")
    age = time.time() - sign.time
    return Check(age <= ALIVE_S, f"last seen {age:.0f} s ago")


def _retention(store: Store) -> Check:
    sign = store.signs().get("retention")
    if sign is None:
        return Check(True, "not run yet")
    error = str(sign.body.get("error", ""))
    return Check(not error, error or f"last run {time.time() - sign.time:.0f} s ago")


_CHECKS = {
    "database": _database,
    "schema": _schema,
    "disk": _disk,
    "evaluator": _evaluator,
    "retention": _retention,
}
