"""A run as a file for other programs, streamed: of any length in little memory."""

from itertools import chain

from flask import Blueprint, Response

from trainvitals.app.export import FORMATS, MEDIA_TYPES, ExportError, encode
from trainvitals.app.store.export import WHATS
from trainvitals.app.web.db import get_store
from trainvitals.app.web.errors import ApiError
from trainvitals.app.web.params import choice, known_run

bp = Blueprint("export_api", __name__)


@bp.get("/api/v1/runs/<run_id>/export")
def export(run_id: str) -> Response:
    """All values of a run in full resolution, one row each: `what` of it, in a `format`."""
    known_run(run_id)
    what = choice("what", WHATS, "scalars")
    form = choice("format", FORMATS, "csv")
    try:
        pieces = encode(get_store().export(run_id, what), form)
        first = next(pieces, b"")  # now, while an error can still be answered as one
    except ExportError as error:
        raise ApiError(501, "not_installed", str(error)) from error
    name = f"{run_id}-{what}.{form}"
    return Response(
        chain([first], pieces),
        mimetype=MEDIA_TYPES[form],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
