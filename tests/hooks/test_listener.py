"""What a server says of a run is data within limits; whatever else comes is dropped."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trainvitals.hooks import listener
from trainvitals.hooks.listener import Listener
from trainvitals.hooks.wire.verdict import MAX_BYTES, Finding

GOOD = {"key": "k", "rule": "loss-divergence", "severity": "critical", "step": 7}


@pytest.fixture
def server():
    """Answers with what `answers` holds, one after the other, the last one again and again."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            http.asked.append((self.path, self.headers.get("Authorization")))
            status, body = http.answers.pop(0) if len(http.answers) > 1 else http.answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass  # the other side had enough

        def log_message(self, *_args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.answers, http.asked = [], []
    http.url = f"http://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


@pytest.fixture
def listen(server, monkeypatch):
    """Listen to some answers until the last, good one has come; what was told, what was complained of."""
    monkeypatch.setattr(listener, "INTERVAL", 0.01)
    monkeypatch.setattr(listener, "MAX_BACKOFF", 0.01)

    def run(*answers):
        last = GOOD | {"key": "the last one"}
        server.answers = [*answers, (200, json.dumps({"findings": [last]}).encode())]
        told, complaints, done = [], [], threading.Event()

        def tell(findings):
            told.extend(findings)
            if any(finding.key == last["key"] for finding in told):
                done.set()

        heard = Listener(server.url, "s3cret", "run-1", tell, complaints.append)
        came = done.wait(20)
        heard.close()
        heard._thread.join(5)
        assert came
        return [finding for finding in told if finding.key != last["key"]], complaints

    return run


def body(**changes):
    return 200, json.dumps({"findings": [GOOD | changes]}).encode()


def test_findings_come_as_typed_data(listen, server):
    told, complaints = listen(body(layers=["fc1"], title="__import__('os').system('x')"))
    assert told == [
        Finding(
            key="k",
            rule="loss-divergence",
            severity="critical",
            step=7,
            layers=["fc1"],
            title="__import__('os').system('x')",
        )
    ]
    assert not complaints
    assert server.asked[0] == ("/api/v1/runs/run-1/verdict", "Bearer s3cret")


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"not json"),
        (200, b"\x80\x04\x95"),
        (200, b"[]"),
        body(severity="fatal"),
        body(step="7"),
        body(step=-1),
        body(title="x" * 3000),
        body(layers=["x"] * 60),
        body(key=None),
        (200, json.dumps({"findings": [GOOD] * 60}).encode()),
    ],
)
def test_what_is_no_verdict_is_dropped_and_said(listen, answer):
    told, complaints = listen(answer)
    assert told == []
    assert len(complaints) == 1 and "can't be read" in complaints[0]


@pytest.mark.parametrize(
    "answer",
    [
        (404, b"{}"),
        (500, b"oops"),
        (200, b'{"findings": []}' + b" " * MAX_BYTES),
        (302, b""),
    ],
)
def test_other_answers_are_asked_for_again(listen, answer):
    assert listen(answer, answer) == ([], [])
