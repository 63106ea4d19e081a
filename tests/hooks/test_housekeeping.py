"""Delivered records make room, the oldest first; nothing else is ever removed."""

import os
from pathlib import Path

import pytest

from trainvitals.hooks import housekeeping, spool
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.records import Start, Step


def payload(seq: int) -> bytes:
    if seq == 0:
        return codec.encode_record(Start(seq=0, time=1.0, project="p", name="n"))
    return codec.encode_record(Step(seq=seq, time=1.0, step=seq, scalars={"loss": 1.0}))


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 300)


def begin(root: Path, run: str, count: int = 40) -> spool.SpoolWriter:
    """A stream that is still being written, in several files."""
    writer = spool.SpoolWriter(root, spool.Meta(run=run, attempt="a1", rank=0))
    for seq in range(count):
        writer.append([payload(seq)])
    return writer


def ended(root: Path, run: str, *, acked: int = 40, age: float = 0.0) -> Path:
    writer = begin(root, run)
    writer.close()
    spool.write_acked(writer.folder, acked)
    for path in writer.folder.iterdir():
        os.utime(path, (1e9 - age, 1e9 - age))
    return writer.folder


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.spool"))


def test_the_oldest_delivered_run_goes_first_and_whole(tmp_path: Path) -> None:
    old, older, new = (
        ended(tmp_path, "b", age=50),
        ended(tmp_path, "a", age=90),
        ended(tmp_path, "c"),
    )
    before = size(older)
    assert housekeeping.tidy(tmp_path, size(old) + size(new)) == before
    assert not older.exists() and not older.parent.exists()
    assert spool.find_streams(tmp_path) == sorted([old, new])
    assert [record.seq for record in spool.read_stream(new)] == list(range(40))


def test_what_was_not_delivered_is_never_removed(tmp_path: Path) -> None:
    none, half = ended(tmp_path, "none", acked=0), ended(tmp_path, "half", acked=20)
    housekeeping.tidy(tmp_path, 0)
    assert [record.seq for record in spool.read_stream(none)] == list(range(40))
    reader = spool.SpoolReader(half)
    reader.seek(20)
    assert reader.read(100, 1 << 20) == [payload(seq) for seq in range(20, 40)]
    reader.close()
    first = next(iter(spool.segments(half)))
    assert 0 < first and spool.read_firsts(half)[first] <= 20


def test_a_stream_that_is_being_written_keeps_its_last_file(tmp_path: Path) -> None:
    writer = begin(tmp_path, "live")
    spool.write_acked(writer.folder, 40)
    assert spool.is_being_written(writer.folder)
    housekeeping.tidy(tmp_path, 0)
    assert len(spool.segments(writer.folder)) == 1
    writer.append([payload(40)])
    reader = spool.SpoolReader(writer.folder)
    reader.seek(40)
    assert reader.read(9, 1 << 20) == [payload(40)]
    reader.close()
    writer.close()
    assert not spool.is_being_written(writer.folder)


def test_a_server_that_wants_removed_records_is_told_where_they_went(tmp_path: Path) -> None:
    folder = ended(tmp_path, "half", acked=20)
    housekeeping.tidy(tmp_path, 0)
    reader = spool.SpoolReader(folder)
    with pytest.raises(codec.WireError, match="were delivered and then removed"):
        reader.seek(0)
    with pytest.raises(codec.WireError, match="were delivered and then removed"):
        list(spool.read_stream(folder))


def test_what_lies_there_is_told_by_what_the_server_has(tmp_path: Path) -> None:
    folder = ended(tmp_path, "half", acked=20)
    (holding,) = housekeeping.holdings(tmp_path)
    frames = [len(codec.frame(payload(seq))) for seq in range(40)]
    assert (holding.delivered, holding.waiting) == (sum(frames[:20]), sum(frames[20:]))
    assert holding.delivered + holding.waiting == size(folder)


def test_a_stream_of_an_earlier_release_without_notes_is_counted_by_reading_it(
    tmp_path: Path,
) -> None:
    folder = ended(tmp_path, "before", acked=40)
    (folder / "firsts").unlink()
    (holding,) = housekeeping.holdings(tmp_path)
    assert (holding.delivered, holding.waiting, holding.whole) == (size(folder), 0, True)


def test_a_note_that_was_cut_off_is_not_believed(tmp_path: Path) -> None:
    folder = ended(tmp_path, "cut")
    notes = (folder / "firsts").read_text()
    (folder / "firsts").write_text(notes + "9 4")
    assert 9 not in spool.read_firsts(folder)
    assert len(spool.read_firsts(folder)) == len(notes.splitlines()) + 1


def test_a_damaged_file_is_kept(tmp_path: Path) -> None:
    folder = ended(tmp_path, "damaged")
    last = spool.segment_path(folder, spool.segments(folder)[-1])
    content = bytearray(last.read_bytes())
    content[10] ^= 0xFF
    last.write_bytes(bytes(content))
    housekeeping.tidy(tmp_path, 0)
    assert last.exists() and (folder / "meta.json").exists()
