"""`trainvitals serve` as a process: start, stop, crash, restart."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import urllib3

from trainvitals.hooks.wire.codec import encode_batch
from trainvitals.hooks.wire.records import Batch, Start, Step

COMMAND = [sys.executable, "-m", "trainvitals.app.cli", "serve"]
LINE = re.compile(r"trainvitals: serving (http://127\.0\.0\.1:(\d+)) \(database (.+)\)\n")
BATCH = {"Content-Type": "application/vnd.trainvitals.batch"}


@pytest.fixture
def serve(tmp_path):
    """Start a server on this test's database; returns the process and its address."""
    started = []

    def start(*options, port=0, **environ):
        clean = {key: value for key, value in os.environ.items() if "TRAINVITALS" not in key}
        with (tmp_path / "stderr").open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, "--port", str(port), "--database", str(tmp_path / "t.db"), *options],
                env=clean | environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        started.append(process)
        line = process.stdout.readline()
        match = LINE.fullmatch(line)
        assert match, line + (tmp_path / "stderr").read_text()
        return process, match[1]

    yield start
    for process in started:
        if process.poll() is None:
            kill_all(process)
        process.stdout.close()


def family(process):
    first = psutil.Process(process.pid)
    return [first, *first.children(recursive=True)]


def kill_all(process):
    members = family(process)
    for member in members:
        member.kill()
    process.wait(10)
    psutil.wait_procs(members, 10)


def batch(first, count):
    records = [
        Start(seq=0, time=1e9, project="p", name="n")
        if seq == 0
        else Step(seq=seq, time=1e9, step=seq - 1, scalars={"loss": float(seq)})
        for seq in range(first, first + count)
    ]
    made = Batch(version=1, run="run-1", attempt="a1", rank=0, first=first, records=records)
    return encode_batch(made)


def post(url, first, count):
    path = f"{url}/api/v1/runs/run-1/batches"
    return urllib3.request("POST", path, body=batch(first, count), headers=BATCH, retries=False)


def wait_until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_server_stores_answers_and_ends_in_good_order(serve, tmp_path):
    process, url = serve()
    assert post(url, 0, 5).json() == {"next": 5, "stored": 5}
    reply = urllib3.request("GET", f"{url}/api/v1/runs/run-1")
    assert reply.json()["last_step"] == 3
    members = family(process)
    assert any("trainvitals.app.evaluator" in " ".join(member.cmdline()) for member in members)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    _, alive = psutil.wait_procs(members[1:], 10)
    assert not alive
    assert "Traceback" not in (tmp_path / "stderr").read_text()


@pytest.mark.slow
def test_sigterm_ends_it_too_even_with_an_open_connection(serve, tmp_path):
    process, url = serve()
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        process.terminate()
        assert process.wait(20) == 0
    assert "Traceback" not in (tmp_path / "stderr").read_text()


@pytest.mark.slow
def test_what_is_being_sent_when_the_server_ends_is_taken_in(serve):
    process, url = serve()
    address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
    body = batch(0, 5)
    head = f"POST /api/v1/runs/run-1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with contextlib.ExitStack() as stack:
        silent, kept, asking = [
            stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(3)
        ]
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = b""
        while not heard.endswith(b"}"):
            heard += kept.recv(4096)
        asking.sendall(head.encode() + f"Content-Type: {BATCH['Content-Type']}\r\n\r\n".encode())
        asking.sendall(body[:-1])
        time.sleep(0.5)  # until it is taken in
        process.terminate()
        assert silent.recv(1) == kept.recv(1) == b""
        asking.sendall(body[-1:])
        answer = b"".join(iter(lambda: asking.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"next":5' in answer
    assert process.wait(20) == 0
    _, url = serve()
    assert post(url, 5, 0).json()["next"] == 5


def test_a_taken_port_is_told_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ["--port", str(port), "--database", str(tmp_path / "t.db")]
        result = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert f"Port {port}" in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_secrets_show_in_no_log_and_in_no_childs_command_line(serve, tmp_path):
    secrets = {
        "TRAINVITALS_SLACK_WEBHOOK": "http://127.0.0.1:9/secret-one",
        "TRAINVITALS_TOKEN": "secret-two",
        "TRAINVITALS_WEBHOOK_SECRET": "secret-three",
    }
    process, url = serve(**secrets)
    assert post(url, 0, 2).status == 401
    assert not any("secret-" in " ".join(member.cmdline()) for member in family(process))
    process.terminate()
    assert process.wait(20) == 0
    assert "secret-" not in (tmp_path / "stderr").read_text()


@pytest.mark.slow
def test_a_refused_body_still_gets_its_answer(serve):
    _, url = serve(TRAINVITALS_TOKEN="right")
    for size in (1 << 20, 9 << 20):  # more than socket buffers hold: an early close would reset
        path = f"{url}/api/v1/runs/run-1/batches"
        reply = urllib3.request("POST", path, body=bytes(size), headers=BATCH, retries=False)
        assert reply.status == 401


@pytest.mark.slow
def test_the_evaluator_is_started_again_when_it_dies(serve):
    process, _ = serve()

    def evaluators():
        return [
            member.pid
            for member in psutil.Process(process.pid).children()
            if member.status() != psutil.STATUS_ZOMBIE
            and "trainvitals.app.evaluator" in " ".join(member.cmdline())
        ]

    wait_until(evaluators)
    (first,) = evaluators()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: set(evaluators()) - {first})
    assert len(evaluators()) == 1
    assert first not in evaluators()


@pytest.mark.slow
def test_nothing_outlives_a_killed_server(serve):
    process, url = serve()
    wait_until(lambda: len(family(process)) >= 4)  # two workers and the evaluator
    members = family(process)[1:]
    process.kill()
    process.wait(10)
    _, alive = psutil.wait_procs(members, 20)
    assert not alive
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", f"{url}/healthz", retries=False)


@pytest.mark.slow
def test_every_acknowledged_record_survives_kill_9_of_all_processes(serve):
    process, url = serve()
    port = int(url.rsplit(":", 1)[1])
    acknowledged = 0
    for _ in range(3):
        for _ in range(40):
            acknowledged = post(url, acknowledged, 7).json()["next"]
        kill_all(process)
        process, url = serve(port=port)
        # the last answer may have been lost on its way: sending again tells where to go on
        assert post(url, acknowledged, 0).json()["next"] == acknowledged
    series = urllib3.request(
        "GET", f"{url}/api/v1/runs/run-1/series?names=loss&points=10000"
    ).json()
    mean = series["series"]["loss"]["mean"]
    assert mean == [float(seq) for seq in range(1, acknowledged)]


@pytest.mark.slow
def test_what_never_reaches_the_app_is_answered_as_json(serve):
    _, url = serve()
    long = urllib3.request("GET", f"{url}/api/v1/runs?x={'a' * 9000}", retries=False)
    assert long.status == 414
    assert long.json()["error"]["code"] == "uri_too_long"
    headers = {"X-Long": "a" * 9000}
    large = urllib3.request("GET", f"{url}/api/v1/runs", headers=headers, retries=False)
    assert large.status == 431
    assert large.json()["error"]["code"] == "headers_too_large"
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        answer = raw.recv(4096)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"bad_request"' in answer


@pytest.mark.slow
def test_every_worker_tells_the_same_counts(serve):
    _, url = serve("--workers", "3")
    path = f"{url}/api/v1/runs"
    asked = 60
    for _ in range(asked):
        # a new connection each time, so that all workers get some
        urllib3.request("GET", path, headers={"Connection": "close"}, retries=False)
    assert post(url, 0, 5).status == 200
    key = 'trainvitals_requests_total{endpoint="api.list_runs",method="GET",status="200"} '
    told = set()
    for _ in range(12):
        text = urllib3.request(
            "GET", f"{url}/metrics", headers={"Connection": "close"}
        ).data.decode()
        told.add(float(text.split(key)[1].split("\n")[0]))
        assert "trainvitals_ingest_records_total 5.0" in text
    assert told == {float(asked)}


@pytest.mark.slow
def test_a_server_becomes_ready(serve):
    _, url = serve()

    def ready():
        return urllib3.request("GET", f"{url}/readyz", retries=False).status == 200

    wait_until(ready)
    checks = urllib3.request("GET", f"{url}/readyz").json()["checks"]
    assert set(checks) == {"database", "schema", "disk", "evaluator", "retention"}


@pytest.mark.slow
def test_pages_that_follow_a_run_end_up_at_one_worker_and_stay_there(serve):
    """The others close their connection until it leads there; of 40 tries the last ones are at home."""
    _, address = serve()
    batch = Batch(
        version=1,
        run="run-1",
        attempt="a1",
        rank=0,
        first=0,
        records=[Start(seq=0, time=1e9, project="p", name="n")],
    )
    url = f"{address}/api/v1/runs/run-1/batches"
    assert urllib3.request("POST", url, body=encode_batch(batch), headers=BATCH).status == 200
    for _ in range(3):
        with urllib3.HTTPConnectionPool("127.0.0.1", int(address.rsplit(":", 1)[1])) as page:
            closed = []
            for _ in range(40):
                answer = page.request("GET", "/api/v1/runs/run-1/live")
                assert answer.status == 200
                closed.append(answer.headers.get("Connection") == "close")
            assert not any(closed[30:])
