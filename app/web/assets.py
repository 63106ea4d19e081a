"""What browsers keep: our own files under a digest of them all, plotly.min.js under its version."""

import gzip
import hashlib
import threading
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response

from trainvitals.app.web.compression import takes_gzip
from trainvitals.app.web.errors import ApiError

bp = Blueprint("assets", __name__)

YEAR_S = 365 * 24 * 3600
FOREVER = f"public, max-age={YEAR_S}, immutable"
_lock = threading.Lock()


def digest(folder: Path) -> str:
    """What the files of `folder` are, as a part of their address: scripts that import each other change together."""
    found = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


@cache
def plotly_version() -> str:
    """Version of the plotly package, which names the file's address."""
    return version("plotly")


def plotly_js() -> tuple[bytes, bytes]:
    """The script, plain and gzip-compressed; read and compressed at the first use."""
    with _lock:
        return _load()


@cache
def _load() -> tuple[bytes, bytes]:
    return packed(files("plotly").joinpath("package_data", "plotly.min.js").read_bytes())


def packed(plain: bytes) -> tuple[bytes, bytes]:
    """A file, plain and gzip-compressed."""
    return plain, gzip.compress(plain, compresslevel=6, mtime=0)


def kept_forever(body: tuple[bytes, bytes], kind: str) -> Response:
    """A file (`packed`) that browsers keep for good: its address changes with it."""
    plain, small = body
    response = Response(small if takes_gzip() else plain, mimetype=kind)
    if takes_gzip():
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Cache-Control"] = FOREVER
    response.headers["Vary"] = "Accept-Encoding"
    return response


@bp.get("/assets/plotly-<wanted>.min.js")
def plotly(wanted: str) -> Response:
    """plotly.js of this installation's version."""
    if wanted != plotly_version():
        raise ApiError(
            404, "not_found", f"This server has plotly {plotly_version()}. Reload the page."
        )
    return kept_forever(plotly_js(), "text/javascript")
