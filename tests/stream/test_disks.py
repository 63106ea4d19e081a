"""Real disks: one that is full, one that may only be read. They are small file systems in memory, which take root."""

import errno
import os
import subprocess
import sys

import pytest

from benchmarks.stream import proof
from benchmarks.stream.streams import Stream
from trainvitals.app.store import Store
from trainvitals.hooks import spool
from trainvitals.hooks.client import Client, Outcome, encode

SIZE = 6 << 20


@pytest.fixture
def disk(tmp_path):
    """A file system of `SIZE` bytes; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(path):
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError as error:
            assert error.errno == errno.ENOSPC


@pytest.mark.slow
def test_a_server_on_a_full_disk_says_so_and_goes_on_where_it_was_once_there_is_room(server, disk):
    server.log = disk.parent / "server.log"
    server.database = disk / "trainvitals.db"
    server.start()
    stream, acknowledged = Stream("run-1", layers=8, columns=3, pool=7), 0
    client = Client(server.url, "")

    def send():
        payloads = [stream.payload(seq) for seq in range(acknowledged, acknowledged + 50)]
        return client.post("run-1", encode("run-1", "a1", 0, acknowledged, payloads))

    acknowledged = send().next
    fill(disk / "ballast")
    while (answer := send()).outcome is Outcome.STORED:
        acknowledged = answer.next
    assert answer.outcome is Outcome.LATER
    assert "full" in answer.message and "Nothing was stored" in answer.message
    assert server.get("/api/v1/runs/run-1")["last_step"] == acknowledged - 3  # still readable
    assert not server.answers("/readyz")

    (disk / "ballast").unlink()
    for _ in range(3):
        acknowledged = send().next
    client.close()
    server.stop()
    with Store.open(server.database) as store:
        records = proof.stored(store, "run-1")["a1/0"]
    assert proof.compare(records, stream.payload, acknowledged, "run-1") == []
    assert proof.sound(server.database) == []


@pytest.mark.slow
def test_a_server_on_a_disk_that_may_only_be_read_does_not_start_and_says_why(disk):
    database = disk / "trainvitals.db"
    Store.open(database).close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    command = [sys.executable, "-m", "trainvitals.app.cli", "serve", "--port", "0"]
    ended = subprocess.run(
        [*command, "--database", str(database)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert f"The database {database} can't be used" in ended.stderr
    assert "can't be written" in ended.stderr


def test_a_spool_on_a_full_disk_takes_a_batch_of_records_whole_or_not_at_all(disk):
    stream = Stream("run-1", layers=8, columns=3, pool=7)
    meta = spool.Meta(run="run-1", attempt="a1", rank=0)
    writer = spool.SpoolWriter(disk, meta)
    writer.append([stream.payload(seq) for seq in range(20)])
    fill(disk / "ballast")
    following = 20
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        while True:
            writer.append([stream.payload(following)])
            following += 1
    (disk / "ballast").unlink()
    writer.append([stream.payload(seq) for seq in range(following, 600)])
    writer.close()
    assert list(spool.read_payloads(writer.folder)) == [stream.payload(seq) for seq in range(600)]
