"""What the person at the terminal is told of the server's troubles, and that sending goes on after them."""

import json
import socket
import threading
from pathlib import Path

import pytest

from tests.hooks.test_delivery import Server, refuse, server, stream, wait_for
from trainvitals.hooks import sender, spool
from trainvitals.hooks.client import Client, Outcome, encode
from trainvitals.hooks.sender import Sender, sync
from trainvitals.hooks.wire import codec
from trainvitals.hooks.wire.records import Event

__all__ = ["server"]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "INTERVAL", 0.02)
    monkeypatch.setattr(sender, "MAX_BACKOFF", 0.1)


def test_a_server_in_trouble_is_told_once_and_so_is_its_recovery(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script += [refuse(503, {"Retry-After": "0.01"})] * 6
    folder = stream(tmp_path, 20, url=server.url)
    sending = Sender(folder, spool.read_meta(folder), "", "the page", keep=1 << 30)
    wait_for(lambda: spool.read_acked(folder) == 20)
    assert sending.close(5)
    lines = capsys.readouterr().err.splitlines()
    assert sum("takes no records for now: refused with 503" in line for line in lines) == 1
    assert any("`trainvitals sync`" in line and str(folder) in line for line in lines)
    assert len(lines) == 2


def test_a_moment_of_business_is_no_news(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script += [refuse(429, {"Retry-After": "0.01"})] * 2
    folder = stream(tmp_path, 20, url=server.url)
    sending = Sender(folder, spool.read_meta(folder), "", "the page", keep=1 << 30)
    wait_for(lambda: spool.read_acked(folder) == 20)
    assert sending.close(5)
    assert "takes no records" not in capsys.readouterr().err


def test_a_deleted_run_ends_the_sending_with_the_reason(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script.append(refuse(410))
    folder = stream(tmp_path, 5, url=server.url)
    sending = Sender(folder, spool.read_meta(folder), "", "the page", keep=1 << 30)
    wait_for(lambda: bool(server.batches))
    assert sending.close(5) is False
    assert len(server.batches) == 1
    assert capsys.readouterr().err.count("refused with 410") == 1


def test_an_answer_that_is_cut_off_is_no_answer() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            connection.recv(1 << 20)
            whole = json.dumps({"next": 1, "stored": 1}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(whole)}\r\n\r\n".encode()
            connection.sendall(head + whole[:7])
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "")
    for _ in range(2):
        assert client.post("run-1", encode("run-1", "a1", 0, 0, [])).outcome is Outcome.UNREACHABLE
    thread.join()
    listener.close()


def test_a_damaged_frame_is_told_and_all_round_it_is_delivered(
    server: Server, tmp_path: Path
) -> None:
    folder = stream(tmp_path, 20)
    segment = folder / "000000.spool"
    with segment.open("rb") as file:
        ends = [end for _, end in codec.read_frames(file)]
    content = bytearray(segment.read_bytes())
    content[ends[11] - 5] ^= 0xFF  # in record 11
    segment.write_bytes(bytes(content))
    result = sync(tmp_path, server.url)
    assert (result.ok, spool.read_acked(folder)) == (True, 20)
    assert "1 record from number 11 on can't be read" in result.damaged[str(folder)][0]
    ((_, records),) = server.stored.items()
    assert [record.seq for record in records] == list(range(20))
    assert [record.seq for record in records if isinstance(record, Event)] == [11]
    assert segment.read_bytes() == bytes(content)


@pytest.mark.slow
def test_a_client_far_behind_says_so_and_catches_up_in_order(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "BATCH_BYTES", 400)
    stream(tmp_path, 200)
    assert sync(tmp_path, server.url, keep=0).delivered == 200
    ((_, records),) = server.stored.items()
    assert [record.seq for record in records] == list(range(200))
    assert server.behind[0] is None and set(server.behind[1:-1]) == {"1"}
    assert spool.find_streams(tmp_path) == []  # nothing delivered was to be kept
