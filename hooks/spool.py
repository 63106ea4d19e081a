"""The spool: a stream's records in append-only files, written before anything is sent.

    .trainvitals/<run>/<attempt>-r<rank>/
        meta.json       {"run", "attempt", "rank", "url"}
        000000.spool    frames of `wire.codec`, one record each; the next file begins after 8 MiB
        acked           the next sequence number the server waits for

Records are numbered without gaps from 0, so the n-th frame of a stream is record n. Loads no torch.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.records import Record

SEGMENT_BYTES = 8 << 20
"""Size after which the next file of a stream begins."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Which stream a folder holds, and which server it is meant for ("" when there is none)."""

    run: str
    attempt: str
    rank: int
    url: str = ""


def stream_folder(root: Path, meta: Meta) -> Path:
    """Where the stream's files lie below `root`, the `.trainvitals` folder."""
    return root / meta.run / f"{meta.attempt}-r{meta.rank}"


def find_streams(folder: Path) -> list[Path]:
    """All stream folders at or below `folder`, at most two levels down, in the order of their names."""
    found = [
        path.parent
        for pattern in ("meta.json", "*/meta.json", "*/*/meta.json")
        for path in folder.glob(pattern)
    ]
    return sorted(found)


def read_meta(folder: Path) -> Meta:
    """Raises ValueError when the folder is no stream."""
    try:
        return msgspec.json.decode((folder / "meta.json").read_bytes(), type=Meta)
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"{folder} holds no stream of records: {error}.") from error


def read_acked(folder: Path) -> int:
    """The next sequence number the server waits for; 0 when it was never reached."""
    try:
        return int((folder / "acked").read_text())
    except (OSError, ValueError):
        return 0


def write_acked(folder: Path, following: int) -> None:
    """Remember that the server has every record before `following`. Raises OSError.

    Written in place twice a second, which costs a tenth of replacing the file; all digits go in one write, and
    a number that is too low only makes a few records go to the server again, which has them already.
    """
    file = os.open(folder / "acked", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.write(file, f"{following:020d}\n".encode())
    finally:
        os.close(file)


def _replace(path: Path, content: bytes) -> None:
    """Write a small file so that a reader or a crash sees the old or the new one, never half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def read_payloads(folder: Path, start: int = 0) -> Iterator[bytes]:
    """The encoded records from number `start` on, up to the last whole one. Raises WireError on damage."""
    number = 0
    for segment in sorted(folder.glob("*.spool")):
        with segment.open("rb") as file:
            for payload, _ in codec.read_frames(file):
                if number >= start:
                    yield payload
                number += 1


def read_stream(folder: Path) -> Iterator[Record]:
    """The records of one stream, up to the last whole one. Raises WireError on damage."""
    for payload in read_payloads(folder):
        yield codec.decode_record(payload)


class SpoolWriter:
    """Appends records to one stream's files. One thread at a time."""

    def __init__(self, root: Path, meta: Meta) -> None:
        """Creates the folder. Raises OSError when it cannot be written or another process holds it."""
        self.folder = stream_folder(root, meta)
        self.folder.mkdir(parents=True, exist_ok=True)
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        self._segment = 0
        self._file: BinaryIO = (self.folder / "000000.spool").open("xb", buffering=0)
        self._size = 0
        _replace(self.folder / "meta.json", msgspec.json.encode(meta))

    def append(self, payloads: list[bytes]) -> None:
        """Write the payloads as frames, all of them or none. Raises OSError with nothing written."""
        if self._size >= SEGMENT_BYTES:
            self._rotate()
        data = b"".join(codec.frame(payload) for payload in payloads)
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        following = (self.folder / f"{self._segment + 1:06d}.spool").open("xb", buffering=0)
        self._file.close()
        self._file, self._size = following, 0
        self._segment += 1

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()


class SpoolReader:
    """Follows a stream that is still being written, from any record on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._segment = 0
        self.position = 0
        """Number of the record that comes next."""

    def seek(self, number: int) -> None:
        """Go on with record `number`. Raises WireError when the stream is shorter than that."""
        self.close()
        self._segment = self.position = 0
        while self.position < number:
            skipped = self._next_frames(number - self.position, 1 << 62)
            if not skipped:
                raise codec.WireError(
                    f"The server waits for record {number:,}, but the spool ends at "
                    f"{self.position:,}; records were lost on this machine."
                )
            self.position += len(skipped)

    def read(self, records: int, size: int) -> list[bytes]:
        """The next payloads: at most `records` and, beyond the first, `size` bytes; [] when none is there.

        They count as read. Raises WireError on damage, OSError.
        """
        payloads = self._next_frames(records, size)
        self.position += len(payloads)
        return payloads

    def _next_frames(self, records: int, size: int) -> list[bytes]:
        payloads: list[bytes] = []
        total = 0
        while len(payloads) < records:
            file = self._open()
            if file is None:
                break
            start = file.tell()
            for payload, position in codec.read_frames(file):
                total += len(payload)
                if payloads and total > size:
                    break
                payloads.append(payload)
                start = position
                if len(payloads) == records:
                    break
            file.seek(start)
            if total >= size or len(payloads) == records or not self._advance():
                break
        return payloads

    def _open(self) -> BinaryIO | None:
        if self._file is None:
            try:
                self._file = (self._folder / f"{self._segment:06d}.spool").open("rb")
            except FileNotFoundError:
                return None
        return self._file

    def _advance(self) -> bool:
        """Go to the next file, if there is one: a file is complete once its successor exists."""
        if not (self._folder / f"{self._segment + 1:06d}.spool").exists():
            return False
        assert self._file is not None
        rest = next(iter(codec.read_frames(self._file)), None)
        if rest is not None:  # written between our last read and the rotation
            self._file.seek(rest[1] - len(codec.frame(rest[0])))
            return True
        self.close()
        self._segment += 1
        return True

    def close(self) -> None:
        """Close the file; `read` opens it again where it was only after `seek`."""
        if self._file is not None:
            self._file.close()
            self._file = None
