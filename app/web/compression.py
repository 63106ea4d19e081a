"""Answers compressed where the client takes it: figures and pages shrink to a fifth."""

import gzip
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from flask import Flask, Response, request

SMALLEST: Final = 1_000
"""Bytes from which compression is worth its time."""
LEVEL: Final = 4
_KINDS = ("text/", "application/json", "image/svg+xml")
_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Of a gzip file (RFC 1952) without name and time."""
_TRAILER: Final = struct.Struct("<II")
"""Its end: checksum, and size modulo 2³²."""


def register(app: Flask) -> None:
    """Compress what `app` answers."""
    app.after_request(compress)


def compress(response: Response) -> Response:
    """`response`, compressed if the current request allows it."""
    if (
        response.status_code != 200
        or not (response.mimetype or "").startswith(_KINDS)
        or "Content-Encoding" in response.headers
        or not takes_gzip()
        or (response.is_streamed and not response.direct_passthrough)
    ):
        return response
    response.direct_passthrough = False  # a static file: all of them are small
    body = response.get_data()
    if len(body) < SMALLEST:
        return response
    return _said(response, gzip.compress(body, LEVEL, mtime=0))


def takes_gzip() -> bool:
    """Whether the client of the current request does."""
    return "gzip" in request.headers.get("Accept-Encoding", "")


@dataclass(frozen=True, slots=True)
class Rest:
    """What many answers end with, compressed once for all of them."""

    plain: bytes
    packed: bytes
    """As a stream of deflate (RFC 1951) that ends the one which it is put behind."""

    @classmethod
    def of(cls, plain: bytes) -> "Rest":
        """`plain` and what it is compressed."""
        return cls(plain, zlib.compress(plain, LEVEL, -zlib.MAX_WBITS))

    def behind(self, start: bytes, mimetype: str) -> Response:
        """The answer to the current request that begins with `start`."""
        if not takes_gzip() or len(self.plain) < SMALLEST:
            return Response(start + self.plain, mimetype=mimetype)
        packer = zlib.compressobj(LEVEL, wbits=-zlib.MAX_WBITS)
        begun = packer.compress(start) + packer.flush(zlib.Z_SYNC_FLUSH)
        check = zlib.crc32(self.plain, zlib.crc32(start))
        end = _TRAILER.pack(check, (len(start) + len(self.plain)) % 2**32)
        return _said(Response(mimetype=mimetype), b"".join((_HEADER, begun, self.packed, end)))


def _said(response: Response, packed: bytes) -> Response:
    response.set_data(packed)
    response.headers["Content-Encoding"] = "gzip"
    response.headers.add("Vary", "Accept-Encoding")
    return response
