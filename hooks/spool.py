"""The spool: a stream's records in append-only files, written before anything is sent.

    .trainvitals/<run>/<attempt>-r<rank>/
        meta.json       {"run", "attempt", "rank", "url"}
        000000.spool    frames of `wire.codec`, one record each; the next file begins after 8 MiB
        firsts          a line for each file from the second on: its number and that of its first record
        acked           the next sequence number the server waits for

Records are numbered without gaps from 0, so the n-th frame of a stream is record n. Files whose records were all
delivered may be removed, the first ones first (`housekeeping`). Loads no torch.
"""

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from trainvitals.hooks import mending
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


def segments(folder: Path) -> list[int]:
    """The numbers of the files that there are, in order."""
    return sorted(int(path.stem) for path in folder.glob("*.spool") if path.stem.isdecimal())


def segment_path(folder: Path, segment: int) -> Path:
    """Where file number `segment` lies."""
    return folder / f"{segment:06d}.spool"


def read_firsts(folder: Path) -> dict[int, int]:
    """The number of the first record by file, as far as it was noted; that of file 0 always is."""
    try:
        text = (folder / "firsts").read_text()
    except OSError:
        text = ""
    noted = {0: 0}
    for words in map(
        str.split, text[: text.rfind("\n") + 1].splitlines()
    ):  # the last may be half a line
        if len(words) == 2 and all(word.isdecimal() for word in words):
            noted[int(words[0])] = int(words[1])
    return noted


def _beginning(folder: Path) -> tuple[int, int]:
    """The first file that is still there, and its first record. Raises WireError where that is not known."""
    segment = next(iter(segments(folder)), 0)
    noted = read_firsts(folder)
    if segment not in noted:
        raise codec.WireError(
            f"The first files of {folder} are gone, and nothing tells how many records they had."
        )
    return segment, noted[segment]


def _check_kept(folder: Path, wanted: int, first: int) -> None:
    if wanted < first:
        raise codec.WireError(
            f"Record {wanted:,} is wanted, but the first {first:,} records were delivered and then removed from "
            f"{folder} to save space; the server that took them has them."
        )


def is_being_written(folder: Path) -> bool:
    """Whether a process may be adding to the stream; also where that can't be found out."""
    try:
        with (folder / "meta.json").open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except OSError:
        return True


def _replace(path: Path, content: bytes) -> None:
    """Write a small file so that a reader or a crash sees the old or the new one, never half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def read_payloads(folder: Path, start: int = 0) -> Iterator[bytes]:
    """The encoded records from number `start` on, up to the last whole one; stand-ins for those that are damaged.

    Raises WireError where those records were delivered and removed.
    """
    reader = SpoolReader(folder)
    try:
        reader.seek(start)
        while payloads := reader.read(1000, 8 << 20):
            yield from payloads
    finally:
        reader.close()


def read_stream(folder: Path) -> Iterator[Record]:
    """The records of one stream, up to the last whole one; see `read_payloads`."""
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
        self._segment = self._records = 0
        self._file: BinaryIO = segment_path(self.folder, 0).open("xb", buffering=0)
        self._size = 0
        _replace(self.folder / "meta.json", msgspec.json.encode(meta))
        self._held = (self.folder / "meta.json").open("rb+")
        with contextlib.suppress(OSError):  # file systems without locks; see `is_being_written`
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)

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
        self._records += len(payloads)

    def _rotate(self) -> None:
        with (self.folder / "firsts").open("a") as file:
            file.write(f"{self._segment + 1} {self._records}\n")
        following = segment_path(self.folder, self._segment + 1).open("xb", buffering=0)
        self._file.close()
        self._file, self._size = following, 0
        self._segment += 1

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._file.close()
        self._held.close()


class SpoolReader:
    """Follows a stream that is still being written, from any record on.

    Records that are damaged come as events that say so (`mending`), and those behind them as they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self.segment = 0
        """Number of the file that is being read."""
        self.position = 0
        """Number of the record that comes next."""
        self.damage: list[str] = []
        """What could not be read, in words."""
        self._stand_ins: deque[bytes] = deque()
        self._fitting: mending.Fitting | None = None

    def seek(self, number: int) -> None:
        """Go on with record `number`. Raises WireError when the stream does not have it (any more)."""
        self.close()
        self._stand_ins.clear()
        self._fitting = None
        self.segment, self.position = _beginning(self._folder)
        _check_kept(self._folder, number, self.position)
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

        They count as read. Raises OSError.
        """
        payloads = self._next_frames(records, size)
        self.position += len(payloads)
        return payloads

    def _next_frames(self, records: int, size: int) -> list[bytes]:
        payloads: list[bytes] = []
        total = 0
        while len(payloads) < records:
            if self._stand_ins:
                payloads.append(self._stand_ins.popleft())
                continue
            file = self._open()
            if file is None:
                break
            start, sound = file.tell(), True
            try:
                for payload, position in codec.read_frames(file):
                    total += len(payload)
                    if payloads and total > size:
                        break
                    payloads.append(self._fitting.fit(payload) if self._fitting else payload)
                    start = position
                    if len(payloads) == records:
                        break
            except codec.WireError:
                sound = False
            file.seek(start)
            if total >= size or len(payloads) == records:
                break
            if self._mend(file, self.position + len(payloads), sound):
                continue
            if not self._advance():
                break
        return payloads

    def _mend(self, file: BinaryIO, number: int, sound: bool) -> bool:
        """Go on behind what can't be read as record `number`; whether there was something to go to.

        sound: whether it may be a frame that is not whole yet, or was cut off when the process ended.
        """
        start = file.tell()
        rest = file.read()
        file.seek(start)
        found = mending.next_sound(rest, 1) if rest else None
        while found is not None and found[1].seq < number:
            found = mending.next_sound(rest, found[0] + 1)
        where = f"{segment_path(self._folder, self.segment).name} from byte {start:,} on"
        if found is not None:
            file.seek(start + found[0])
        elif segment_path(self._folder, self.segment + 1).exists() and rest:
            if (
                mending.next_sound(rest, 0) is not None
            ):  # written between the last read and the rotation
                return True
            self.close()
            self.segment += 1
            following = self._open()
            head = following.read() if following else b""
            found = mending.next_sound(head, 0)
            if following is None or found is None or found[1].seq < number:
                raise codec.WireError(f"{where} is damaged, and nothing behind it can be read.")
            following.seek(found[0])
        else:
            told = f"{where} is damaged; nothing follows."
            if not sound and told not in self.damage and not is_being_written(self._folder):
                self.damage.append(told)
            return False
        self._replace_lost(number, found[1], where)
        return True

    def _replace_lost(self, number: int, after: Record, where: str) -> None:
        """Stand in for the records from `number` to before `after`, and hold what follows against its layouts."""
        lost = after.seq - number
        if not lost:
            return
        told = f"{lost:,} record{'s' if lost > 1 else ''} from number {number:,} on can't be read: {where} is damaged"
        if told not in self.damage:
            self.damage.append(told)
        last, self._fitting = self._learned(number)
        run = read_meta(self._folder).run
        self._stand_ins.extend(
            mending.stand_in(seq, last, after, run, where) for seq in range(number, after.seq)
        )

    def _learned(self, number: int) -> tuple[Record | None, mending.Fitting]:
        """The record before `number`, and what the layouts before it say."""
        first, at = _beginning(self._folder)
        fitting = mending.Fitting(whole=first == 0)
        reader, last = SpoolReader(self._folder), None
        reader.segment, reader.position = first, at
        try:
            while reader.position < number:
                for payload in reader.read(min(number - reader.position, 1000), 8 << 20):
                    fitting.learn(payload)
                    last = payload
        finally:
            reader.close()
        return None if last is None else codec.decode_record(last), fitting

    def _open(self) -> BinaryIO | None:
        if self._file is None:
            try:
                self._file = segment_path(self._folder, self.segment).open("rb")
            except FileNotFoundError:
                return None
        return self._file

    def _advance(self) -> bool:
        """Go to the next file, if there is one: a file is complete once its successor exists."""
        if not segment_path(self._folder, self.segment + 1).exists():
            return False
        assert self._file is not None
        if self._file.read(1):  # written between the last read and the rotation
            self._file.seek(-1, os.SEEK_CUR)
            return True
        self.close()
        self.segment += 1
        return True

    def close(self) -> None:
        """Close the file; `read` opens it again where it was only after `seek`."""
        if self._file is not None:
            self._file.close()
            self._file = None
