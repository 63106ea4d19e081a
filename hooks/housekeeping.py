"""Keeps the spool from growing for ever: what the server has goes, the oldest first, once it takes too much room.

What was not delivered is never removed, nor is the file that a stream is being written to. Loads no torch.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from trainvitals.hooks import spool
from trainvitals.hooks.wire import codec

_SMALL_FILES = ("acked", "firsts", "meta.tmp")


class Holding(msgspec.Struct, frozen=True):
    """What lies in one stream's folder."""

    folder: Path
    delivered: int
    """Bytes of records that the server has."""
    waiting: int
    """Bytes of records that it was not seen to have."""
    changed: float
    """When it last grew, Unix seconds."""
    removable: list[int]
    """Files of which the server has everything and that nobody writes to, in order."""
    whole: bool
    """Whether those are all that there is."""


def holdings(root: Path) -> list[Holding]:
    """What lies in every stream's folder at or below `root`, the oldest first. Raises OSError."""
    found = []
    for folder in spool.find_streams(root):
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            found.append(_holding(folder))
    return sorted(found, key=lambda holding: holding.changed)


def _holding(folder: Path) -> Holding:
    acked = spool.read_acked(folder)
    busy = spool.is_being_written(folder)
    noted = spool.read_firsts(folder)
    present = spool.segments(folder)
    delivered = waiting = 0
    changed = (folder / "meta.json").stat().st_mtime
    removable = []
    first = noted.get(present[0]) if present else 0
    for segment in present:
        path = spool.segment_path(folder, segment)
        facts = path.stat()
        changed = max(changed, facts.st_mtime)
        following = noted.get(segment + 1) if segment != present[-1] else None
        first, share, known = _delivered(path, first, following, acked)
        delivered += share
        waiting += facts.st_size - share
        last = segment == present[-1]
        if known and share == facts.st_size and not (busy and last):
            removable.append(segment)
    return Holding(
        folder, delivered, waiting, changed, removable, removable == present and not busy
    )


def _delivered(
    path: Path, first: int | None, following: int | None, acked: int
) -> tuple[int | None, int, bool]:
    """The first record of the next file, the bytes of this one that were delivered, whether that is certain.

    first, following: the first records of this file and of the next one, where they were noted. A file that lies
    wholly on one side of the mark is not read.
    """
    size = path.stat().st_size
    if first is None:
        return following, 0, False
    if following is not None and following <= acked:
        return following, size, True
    if first >= acked:
        return following, 0, True
    number, share = first, 0
    try:
        with path.open("rb") as file:
            for _, end in codec.read_frames(file):
                number += 1
                if number <= acked:
                    share = end
    except codec.WireError:  # damaged: kept for the person to see to
        return following, share, False
    return following if following is not None else number, share, True


def tidy(root: Path, keep: int) -> int:
    """Remove delivered files, the oldest first, until at most `keep` bytes of them are left; the bytes removed.

    Raises OSError.
    """
    held = holdings(root)
    surplus = sum(holding.delivered for holding in held) - keep
    removed = 0
    for holding in held:
        if removed >= surplus:
            break
        if holding.whole:
            removed += _remove_stream(holding)
            continue
        for segment in holding.removable:
            if removed >= surplus:
                break
            path = spool.segment_path(holding.folder, segment)
            removed += path.stat().st_size
            path.unlink()
    return removed


def _remove_stream(holding: Holding) -> int:
    folder = holding.folder
    (folder / "meta.json").unlink()  # first: without it the folder is no stream any more
    for segment in holding.removable:
        spool.segment_path(folder, segment).unlink()
    for name in _SMALL_FILES:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something of somebody else's is in it
        os.rmdir(folder)
        os.rmdir(folder.parent)
    return holding.delivered
