"""The stream from a real trainer to a real server, through everything that goes wrong on the way."""

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from trainvitals.app.diagnose import diagnose
from trainvitals.app.store import Store
from trainvitals.hooks.spool import read_stream
from trainvitals.hooks.wire.records import Record, Step
from trainvitals.hooks.wire.scalars import expand

pytestmark = pytest.mark.slow


def spooled(folder: Path, run: str) -> list[Record]:
    """What the trainer wrote to its disk, without histograms (which are not replayed)."""
    (stream,) = (folder / ".trainvitals" / run).iterdir()
    return [
        msgspec.structs.replace(record, histograms=[]) if isinstance(record, Step) else record
        for record in read_stream(stream)
    ]


def stored(database: Path, run: str) -> list[Record]:
    """What the server acknowledged."""
    records, cursor = [], {}
    with Store.open(database) as store:
        while batch := store.replay(run, cursor, limit=1000):
            for stream, record in batch:
                cursor[f"{stream.attempt}/{stream.rank}"] = record.seq + 1
                records.append(record)
    return records


def steps_of(records: list[Record]) -> list[Step]:
    return [step for r in records for step in expand(r) if isinstance(step, Step)]


def plain(finding) -> dict:
    """A finding as the API gives it: JSON there and back."""
    return json.loads(json.dumps(msgspec.to_builtins(finding)))


def same(left: list[Record], right: list[Record]) -> bool:
    """Equal with NaN equal to itself: compared as they are encoded."""
    return [msgspec.msgpack.encode(r) for r in left] == [msgspec.msgpack.encode(r) for r in right]


def sync(folder: Path, url: str) -> str:
    command = [sys.executable, "-m", "trainvitals.app.cli", "sync", "--url", url]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_what_was_recorded_without_a_server_is_delivered_by_sync_once(server, trainer, tmp_path):
    server.start()
    url = server.url
    server.stop()
    process, run = trainer(url, steps=60, pause_s=0.0)
    _, notice = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(notice.strip().splitlines()) == 1 and "trainvitals sync" in notice, notice

    server.start()
    for _ in range(2):  # a second sync finds nothing to do and doubles nothing
        sync(tmp_path, server.url)
        records = stored(server.database, run)
        assert same(records, spooled(tmp_path, run))
        losses = [r.step for r in steps_of(records) if "train/loss" in r.scalars]
        assert losses == list(range(60))


def test_a_killed_server_loses_and_doubles_nothing_that_it_acknowledged(server, trainer, tmp_path):
    server.start()
    process, run = trainer(server.url, steps=400, pause_s=0.02)
    for _ in range(3):
        time.sleep(1.2)
        server.kill()
        server.start()
    process.communicate(timeout=90)
    sync(tmp_path, server.url)
    assert same(stored(server.database, run), spooled(tmp_path, run))
    with sqlite3.connect(server.database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_killed_trainer_leaves_all_but_its_last_second_and_reads_lost_contact(
    server, trainer, tmp_path
):
    server.start()
    process, run = trainer(server.url, steps=100_000, pause_s=0.02)
    time.sleep(4)
    process.kill()
    killed = time.monotonic()
    printed = [int(line) for line in process.stdout.read().split()]

    steps = [r.step for r in steps_of(stored(server.database, run))]
    seconds_missing = (max(printed) - max(steps)) * 0.02
    assert seconds_missing <= 1.5, f"{max(printed)} printed, {max(steps)} stored"
    kept = [r.step for r in steps_of(spooled(tmp_path, run))]
    assert (max(printed) - max(kept)) * 0.02 <= 1.0
    sync(tmp_path, server.url)
    assert same(stored(server.database, run), spooled(tmp_path, run))

    while server.get(f"/api/v1/runs/{run}")["status"] == "running":
        assert time.monotonic() - killed < 40
        time.sleep(0.5)
    assert server.get(f"/api/v1/runs/{run}")["status"] == "lost contact"


def test_findings_and_alerts_survive_kills_of_the_server_neither_lost_nor_doubled(
    server, trainer, receiver, tmp_path
):
    server.environment["TRAINVITALS_WEBHOOK_URL"] = receiver.url
    server.start()
    process, run = trainer(server.url, steps=300, pause_s=0.03, broken=60)
    for pause in (1.0, 1.7, 0.6, 2.3, 1.1):
        time.sleep(pause)
        server.kill()
        server.start()
    process.communicate(timeout=90)
    sync(tmp_path, server.url)
    server.until(lambda: server.get(f"/api/v1/runs/{run}")["judged"])
    server.until(lambda: receiver.messages)
    time.sleep(3)  # a doubled message would come now

    found = server.get(f"/api/v1/runs/{run}/findings")["findings"]
    replayed = [plain(finding) for finding in diagnose(str(tmp_path / ".trainvitals" / run))]
    assert [finding["key"] for finding in found] == [finding["key"] for finding in replayed]
    judged = [name for name in replayed[0] if name not in ("acknowledged", "policy")]
    assert [[f[name] for name in judged] for f in found] == [
        [f[name] for name in judged] for f in replayed
    ]
    root = found[0]
    assert (root["rule"], root["first_step"], root["root"]) == ("nonfinite-activation", 60, True)
    roots = sum(finding["root"] and finding["severity"] != "info" for finding in found)
    assert len({key for key, _ in receiver.messages}) == roots == len(receiver.messages)


def test_ctrl_c_ends_the_server_in_order(server):
    server.start()
    assert server.stop() == 0
