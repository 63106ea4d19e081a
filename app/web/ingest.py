"""Where training processes send their records."""

import time

from flask import Blueprint, Response, request

from trainvitals.app.web.admission import get_admission
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.security import BATCH_TYPE
from trainvitals.app.web.serialize import json_response
from trainvitals.hooks.wire import codec, limits
from trainvitals.hooks.wire.limits import BEHIND_HEADER
from trainvitals.hooks.wire.validate import validate_batch

bp = Blueprint("ingest", __name__)

_PIECE = 1 << 20
"""Bytes of a body that are taken at once."""


@bp.post("/api/v1/runs/<run_id>/batches")
def append(run_id: str) -> Response:
    """Store a batch; answer `{"next": n}`, the number of the record that is expected next.

    Raises WireError for a malformed batch, SequenceGap, InvalidRecord, RunDeleted, and 429 when more is sent than
    can be taken in: all become error answers.
    """
    if request.mimetype != BATCH_TYPE:
        raise ApiError(
            415,
            "unsupported_media_type",
            f"The content type is {request.mimetype[:80]!r}; expected {BATCH_TYPE}.",
        )
    request.max_content_length = limits.MAX_BATCH_BYTES
    head = request.stream.read(codec.HEADER_BYTES)
    length = request.content_length or limits.MAX_BATCH_BYTES
    size = codec.unpacked_size(head) + length
    with get_admission().hold(size, behind=BEHIND_HEADER in request.headers):
        batch = codec.decode_batch(head + _rest(length))
        validate_batch(batch)
        if batch.run != run_id:
            raise codec.WireError(
                f"The batch is of run {batch.run!r}, the address names {run_id[:80]!r}."
            )
        receipt = get_store().append(batch, time.time())
    return json_response({"next": receipt.next, "stored": receipt.stored})


def _rest(length: int) -> bytes:
    """What is left of the body, of at most `length` bytes. Raises RequestEntityTooLarge, ClientDisconnected.

    In pieces that are as large as can be: `read()` takes 64 KiB at a time, and what has arrived is copied each time.
    """
    pieces = []
    while piece := request.stream.read(min(length, _PIECE)):
        pieces.append(piece)
    return b"".join(pieces)
