"""What was written is read back, whatever happened in between."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainvitals.hooks import spool
from trainvitals.hooks.recorder import Recorder
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.records import Event, Layout, Row, Sample, Start, Step


def meta(url: str = "") -> spool.Meta:
    return spool.Meta(run="run-1", attempt="a1", rank=0, url=url)


def payload(seq: int) -> bytes:
    if seq == 0:
        return codec.encode_record(Start(seq=0, time=1.0, project="p", name="n"))
    return codec.encode_record(Step(seq=seq, time=1.0, step=seq, scalars={"loss": 1.0}))


def written(root: Path, count: int) -> Path:
    writer = spool.SpoolWriter(root, meta())
    writer.append([payload(seq) for seq in range(count)])
    writer.close()
    return writer.folder


def test_records_come_back_in_order(tmp_path: Path) -> None:
    folder = written(tmp_path, 5)
    assert [record.seq for record in spool.read_stream(folder)] == [0, 1, 2, 3, 4]
    assert spool.read_meta(folder) == meta()
    assert spool.find_streams(tmp_path) == [folder]


@pytest.mark.parametrize("lost", [1, 7, 9, 30])
def test_a_record_cut_off_by_a_crash_is_left_out(tmp_path: Path, lost: int) -> None:
    folder = written(tmp_path, 5)
    segment = folder / "000000.spool"
    segment.write_bytes(segment.read_bytes()[:-lost])
    assert [record.seq for record in spool.read_stream(folder)] == [0, 1, 2, 3]


def damaged(path: Path, position: int, count: int = 1) -> None:
    """Turn bits of `count` bytes of a file from `position` on."""
    content = bytearray(path.read_bytes())
    for place in range(position, position + count):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))


def places(path: Path) -> list[int]:
    """Where the frames of a file begin, and where the last one ends."""
    with path.open("rb") as file:
        return [0, *(end for _, end in codec.read_frames(file))]


@pytest.mark.parametrize("at", [0, 2, 5, 20])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_what_follows_a_damaged_record_is_read_and_the_lost_one_is_named(
    tmp_path: Path, number: int, at: int
) -> None:
    """Damaged in its length, its checksum or its payload."""
    folder = written(tmp_path, 6)
    before = list(spool.read_stream(folder))
    segment = spool.segment_path(folder, 0)
    damaged(segment, places(segment)[number] + at)
    reader = spool.SpoolReader(folder)
    after = [codec.decode_record(payload) for payload in reader.read(100, 1 << 20)]
    reader.close()
    assert [record.seq for record in after] == list(range(6))
    assert after[:number] + after[number + 1 :] == before[:number] + before[number + 1 :]
    lost = after[number]
    if number:
        assert isinstance(lost, Event) and lost.data == {"lost": True}
        assert f"Record {number} was lost: 000000.spool" in lost.message
    else:
        assert isinstance(lost, Start) and "was lost" in lost.environment["lost"]
    assert [f"number {number} on can't be read" in told for told in reader.damage] == [True]


def test_damage_over_several_records_and_files_loses_just_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 200)
    writer = spool.SpoolWriter(tmp_path, meta())
    for seq in range(40):
        writer.append([payload(seq)])
    writer.close()
    folder = writer.folder
    first, second = spool.segment_path(folder, 0), spool.segment_path(folder, 1)
    ends, more = places(first), places(second)
    damaged(first, ends[-2] + 1, ends[-1] - ends[-2] - 1)  # the last one of a file
    damaged(second, 0, more[2])  # and the first two of the next
    reader = spool.SpoolReader(folder)
    read = []
    while payloads := reader.read(3, 1 << 20):
        read += [codec.decode_record(payload) for payload in payloads]
    reader.seek(len(ends))
    assert codec.decode_record(reader.read(1, 1)[0]) == read[len(ends)]
    reader.close()
    assert [record.seq for record in read] == list(range(40))
    lost = [r.seq for r in read if isinstance(r, Event) and r.data.get("lost")]
    assert lost == [len(ends) - 2, len(ends) - 1, len(ends)]


def test_samples_whose_layout_was_lost_are_left_out_of_their_records(tmp_path: Path) -> None:
    writer = spool.SpoolWriter(tmp_path, meta())
    values = codec.pack_floats(np.ones((1, 2), np.float32))
    layouts = [
        Layout(
            seq=1 + group, time=1e9, step=0, group=group, kind="activation", rows=[Row(name="fc")],
            columns=["mean", "std"],
        )
        for group in range(2)
    ]  # fmt: skip
    samples = [Sample(group=group, values=values) for group in range(2)]
    step = Step(seq=3, time=1e9, step=0, scalars={"loss": 1.0}, samples=samples)
    start = Start(seq=0, time=1e9, project="p", name="n")
    writer.append([codec.encode_record(record) for record in (start, *layouts, step)])
    writer.close()
    segment = spool.segment_path(writer.folder, 0)
    damaged(segment, places(segment)[2] + 30)
    *_, last = spool.read_stream(writer.folder)
    assert last == Step(seq=3, time=1e9, step=0, scalars={"loss": 1.0}, samples=samples[:1])


def test_damage_at_the_end_of_a_stream_is_told(tmp_path: Path) -> None:
    folder = written(tmp_path, 5)
    segment = spool.segment_path(folder, 0)
    begin = places(segment)[4]
    damaged(segment, begin + 20)
    reader = spool.SpoolReader(folder)
    assert len(reader.read(100, 1 << 20)) == 4
    assert reader.read(100, 1 << 20) == []
    reader.close()
    assert reader.damage == [f"000000.spool from byte {begin} on is damaged; nothing follows."]


def test_long_streams_go_on_in_further_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 200)
    writer = spool.SpoolWriter(tmp_path, meta())
    reader = spool.SpoolReader(writer.folder)
    followed: list[bytes] = []
    for seq in range(50):
        writer.append([payload(seq)])
        followed += reader.read(10, 1 << 20)
    writer.close()
    assert len(list(writer.folder.glob("*.spool"))) > 5
    assert followed == [payload(seq) for seq in range(50)]
    assert [record.seq for record in spool.read_stream(writer.folder)] == list(range(50))
    reader.seek(17)
    assert reader.read(100, 1 << 20) == [payload(seq) for seq in range(17, 50)]
    reader.close()


def test_a_batch_is_limited_in_records_and_bytes(tmp_path: Path) -> None:
    reader = spool.SpoolReader(written(tmp_path, 10))
    assert len(reader.read(4, 1 << 20)) == 4
    assert len(reader.read(100, len(payload(5)) * 2)) == 2
    assert len(reader.read(100, 1)) == 1
    assert reader.position == 7
    reader.close()


def test_seeking_beyond_the_end_says_what_is_lost(tmp_path: Path) -> None:
    reader = spool.SpoolReader(written(tmp_path, 3))
    with pytest.raises(codec.WireError, match="waits for record 9"):
        reader.seek(9)
    reader.close()


def test_acknowledgement_is_remembered(tmp_path: Path) -> None:
    folder = written(tmp_path, 3)
    assert spool.read_acked(folder) == 0
    spool.write_acked(folder, 2)
    assert spool.read_acked(folder) == 2
    (folder / "acked").write_text("garbage")
    assert spool.read_acked(folder) == 0


def test_a_folder_that_is_no_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no stream"):
        spool.read_meta(tmp_path)


def test_a_full_disk_loses_records_but_leaves_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = spool.SpoolWriter(tmp_path, meta())
    recorder = Recorder(writer)
    recorder.start(project="p", name="n")
    recorder.flush()
    append = writer.append

    def full(_: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "append", full)
    for step in range(3):
        recorder.step(step=step, scalars={"loss": 1.0})
        recorder.flush()
    monkeypatch.setattr(writer, "append", append)
    recorder.step(step=3, scalars={"loss": 1.0})
    recorder.close()
    records = list(spool.read_stream(writer.folder))
    assert [record.seq for record in records] == [0, 1]
    assert recorder.dropped == 3
    assert capsys.readouterr().err.count("No space left") == 1


def test_a_partly_written_batch_is_taken_back(tmp_path: Path) -> None:
    writer = spool.SpoolWriter(tmp_path, meta())
    writer.append([payload(0)])

    class Filling:
        """A file whose disk is full after a few bytes."""

        def __init__(self, file: Any) -> None:
            self._file = file
            self._room = 10

        def write(self, data: bytes) -> int:
            if not self._room:
                raise OSError(errno.ENOSPC, "No space left on device")
            self._room = 0
            return int(self._file.write(data[:10]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    file = writer._file
    writer._file = Filling(file)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space"):
        writer.append([payload(1)])
    writer._file = file
    writer.append([payload(1)])
    writer.close()
    assert [record.seq for record in spool.read_stream(writer.folder)] == [0, 1]
