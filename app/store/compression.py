"""zstd, level 1."""

import threading

import zstandard


class _Codecs(threading.local):
    """zstd contexts are costly to make, and may not be shared by threads."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_codecs = _Codecs()


def compress(data: bytes) -> bytes:
    """`data` as a zstd frame."""
    return _codecs.compress(data)


def decompress(data: bytes) -> bytes:
    """The inverse of `compress`. Raises zstandard.ZstdError for damaged bytes."""
    return _codecs.decompress(data)
