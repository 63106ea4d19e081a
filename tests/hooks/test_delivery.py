"""Delivery to a server that answers as it likes."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trainvitals.hooks as tv
from trainvitals.hooks import sender, spool
from trainvitals.hooks.sender import sync
from trainvitals.hooks.wire import codec, limits
from trainvitals.hooks.wire.records import Batch, Start, Step
from trainvitals.hooks.wire.scalars import expand
from trainvitals.hooks.wire.validate import validate_batch

Answer = tuple[int, dict[str, Any], dict[str, str]]


class Server:
    """Stores batches like the real one, unless `script` has another answer for the next request."""

    def __init__(self, port: int = 0) -> None:
        self.stored: dict[tuple[str, str, int], list[Any]] = {}
        self.batches: list[Batch] = []
        self.script: list[Callable[[Batch], Answer]] = []
        self.authorization: list[str | None] = []
        self.behind: list[str | None] = []
        double = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                batch = codec.decode_batch(self.rfile.read(int(self.headers["Content-Length"])))
                validate_batch(batch)
                double.authorization.append(self.headers.get("Authorization"))
                double.behind.append(self.headers.get(limits.BEHIND_HEADER))
                assert self.path == f"/api/v1/runs/{batch.run}/batches"
                status, document, headers = double.answer(batch)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, batch: Batch) -> Answer:
        self.batches.append(batch)
        if self.script:
            return self.script.pop(0)(batch)
        return self.store(batch)

    def store(self, batch: Batch) -> Answer:
        stored = self.stored.setdefault((batch.run, batch.attempt, batch.rank), [])
        if batch.first > len(stored):
            return 409, {"error": {"message": "gap"}, "expected": len(stored)}, {}
        stored += batch.records[len(stored) - batch.first :]
        return 200, {"next": len(stored)}, {}

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    double = Server()
    yield double
    double.close()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "INTERVAL", 0.02)
    monkeypatch.setattr(sender, "HEARTBEAT", 0.2)
    monkeypatch.setattr(sender, "MAX_BACKOFF", 0.1)


def stream(root: Path, count: int, *, url: str = "", attempt: str = "a1") -> Path:
    writer = spool.SpoolWriter(root, spool.Meta(run="run-1", attempt=attempt, rank=0, url=url))
    records: list[Any] = [Start(seq=0, time=1.0, project="p", name="n")]
    records += [
        Step(seq=seq, time=1.0, step=seq, scalars={"loss": 1.0 * seq}) for seq in range(1, count)
    ]
    writer.append([codec.encode_record(record) for record in records])
    writer.close()
    return writer.folder


def expanded(records: list[Any]) -> list[Any]:
    return [step for record in records for step in expand(record)]


def refuse(
    status: int, headers: dict[str, str] | None = None, **extra: Any
) -> Callable[[Batch], Answer]:
    document = {"error": {"code": "refused", "message": f"refused with {status}"}, **extra}
    return lambda batch: (status, document, headers or {})


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_a_run_arrives_complete(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tv.init(project="p", mode="online", url=server.url, token="hush", id="live-1")
    for step in range(30):
        tv.log({"loss": float(step)}, step=step)
    tv.finish()
    ((key, records),) = server.stored.items()
    assert key[0] == "live-1"
    assert [record.seq for record in records] == list(range(len(records)))
    logged = [(step.step, step.scalars) for step in expanded(records)[1:-1]]
    assert logged == [(step, {"loss": float(step)}) for step in range(30)]
    assert set(server.authorization) == {"Bearer hush"}
    (folder,) = spool.find_streams(tmp_path / ".trainvitals")
    assert spool.read_acked(folder) == len(records)
    error = capsys.readouterr().err
    assert error.splitlines() == [f"trainvitals: watching at {run.url}"]


def test_a_quiet_run_sends_heartbeats(server: Server) -> None:
    tv.init(mode="online", url=server.url)
    wait_for(lambda: sum(not batch.records for batch in server.batches) >= 2)
    beat = next(batch for batch in server.batches if not batch.records)
    assert beat.first == 1


def test_an_unreachable_server_costs_one_line_and_gets_everything_later(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tv.init(mode="online", url=f"http://127.0.0.1:{port}")
    tv.log({"loss": 1.0})
    lines: list[str] = []

    def told() -> bool:
        lines.extend(capsys.readouterr().err.splitlines())
        return bool(lines)

    wait_for(told)
    late = Server(port)
    try:
        tv.log({"loss": 2.0})
        wait_for(lambda: any(len(expanded(records)) >= 3 for records in late.stored.values()))
        tv.finish()
        ((_, records),) = late.stored.items()
        assert len(expanded(records)) == 4
    finally:
        late.close()
    lines.extend(capsys.readouterr().err.splitlines())
    assert sum("no server at" in line and "trainvitals sync" in line for line in lines) == 1


def test_a_night_without_a_server_does_not_end_the_sending(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = tv.init(mode="online", url=f"http://127.0.0.1:{port}")
    tv.log({"loss": 1.0})
    wait_for(lambda: run._sender is not None and run._sender._failures > 1)
    run._sender._failures = 5_000  # one each five seconds
    wait_for(lambda: run._sender._failures > 5_001)
    late = Server(port)
    try:
        wait_for(lambda: bool(late.stored))
        tv.finish()
    finally:
        late.close()
    assert "trainvitals sync" in capsys.readouterr().err


def test_a_gap_makes_the_client_go_back(server: Server, tmp_path: Path) -> None:
    folder = stream(tmp_path, 10, url=server.url)
    spool.write_acked(folder, 6)  # the server has lost its database since
    result = sync(tmp_path, server.url)
    assert result.ok
    ((_, records),) = server.stored.items()
    assert [record.seq for record in records] == list(range(10))
    assert spool.read_acked(folder) == 10


def test_a_batch_that_is_too_large_is_halved(server: Server, tmp_path: Path) -> None:
    def small_only(batch: Batch) -> Answer:
        if len(batch.records) > 3:
            server.script.append(small_only)
            return refuse(413)(batch)
        server.script.append(small_only)
        return server.store(batch)

    server.script.append(small_only)
    stream(tmp_path, 20)
    assert sync(tmp_path, server.url).delivered == 20
    assert max(len(b.records) for b in server.batches[4:]) <= 3


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.script += [refuse(429, {"Retry-After": "0.01"}), refuse(503, {"Retry-After": "0.01"})]
    stream(tmp_path, 5)
    assert sync(tmp_path, server.url).delivered == 5
    assert len(server.batches) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_a_refusal_stops_sending_and_is_said_once(
    server: Server, tmp_path: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script.append(refuse(status))
    tv.init(mode="online", url=server.url)
    wait_for(lambda: bool(server.batches))
    tv.log({"loss": 1.0})
    tv.finish()
    assert len(server.batches) == 1
    assert capsys.readouterr().err.count(f"refused with {status}") == 1
    (folder,) = spool.find_streams(tmp_path / ".trainvitals")
    assert len(list(spool.read_stream(folder))) == 3


def test_sync_delivers_every_stream_and_is_harmless_twice(server: Server, tmp_path: Path) -> None:
    stream(tmp_path, 4)
    stream(tmp_path, 6, attempt="a2")
    told: list[tuple[str, int]] = []
    result = sync(tmp_path, server.url, progress=lambda folder, count: told.append((folder, count)))
    assert (result.streams, result.delivered, result.ok) == (2, 10, True)
    assert [count for _, count in told] == [4, 6]
    again = sync(tmp_path, server.url)
    assert again.ok
    assert sorted(len(records) for records in server.stored.values()) == [4, 6]


def test_sync_says_what_it_could_not_deliver(server: Server, tmp_path: Path) -> None:
    server.script.append(refuse(401))
    folder = stream(tmp_path, 4)
    result = sync(tmp_path, server.url)
    assert result.failed == {str(folder): "refused with 401"}
    assert spool.read_acked(folder) == 0


def test_sync_without_anything_recorded_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no recorded run"):
        sync(tmp_path, "http://127.0.0.1:1")


def test_sync_without_a_server_says_so(tmp_path: Path) -> None:
    stream(tmp_path, 2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        result = sync(tmp_path, f"http://127.0.0.1:{probe.getsockname()[1]}")
    assert len(result.failed) == 1


def test_what_is_no_server_of_ours_is_refused(server: Server, tmp_path: Path) -> None:
    server.script.append(lambda batch: (200, {"hello": "world"}, {}))
    stream(tmp_path, 2)
    assert "no trainvitals server" in next(iter(sync(tmp_path, server.url).failed.values()))
