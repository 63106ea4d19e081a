"""Values to JSON. NaN and infinity have no place in JSON: arrays get null, single values get words."""

import math
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

import msgspec
import numpy as np
from flask import Response


def json_response(value: object, status: int = 200) -> Response:
    """`value` as a JSON response; non-finite numbers anywhere in it become null."""
    return Response(dumps(value), status=status, mimetype="application/json")


def dumps(value: object) -> bytes:
    """`value` as JSON: structs, dataclasses and numpy arrays included, non-finite numbers as null."""
    return _encoder.encode(value)


def number(value: float | None) -> float | str | None:
    """`value`, or "nan", "inf" or "-inf" where that is what there is to say."""
    if value is None or math.isfinite(value):
        return value
    if math.isnan(value):
        return "nan"
    return "inf" if value > 0 else "-inf"


def plain(value: Any) -> Any:
    """`value` (of dicts, lists and numbers) with non-finite numbers as words, as in `number`."""
    match value:
        case bool() | str() | None:
            return value
        case float() | np.floating():
            return number(float(value))
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value


def timestamp(seconds: float | None) -> str | None:
    """Unix time as RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unknown(value: object) -> object:
    match value:
        case np.ndarray() | np.generic():
            return value.tolist()
        case PurePath():
            return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_unknown)
