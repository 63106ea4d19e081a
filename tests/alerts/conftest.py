"""Findings, alerts and a receiver on loopback."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trainvitals.app.alerts.message import Alert
from trainvitals.app.rules.finding import Finding


@pytest.fixture
def finding():
    def make(key="dead_units:fc1", **changes):
        values = {
            "rule": key.partition(":")[0],
            "severity": "warning",
            "state": "firing",
            "first_step": 100,
            "last_step": 120,
            "layers": ["fc1"],
            "root": True,
            "cause": "",
            "evidence": {"seen": 0.9, "expected": "at most 0.5"},
            "title": f"{key} is sick.",
            "remedy": "Lower the learning rate.",
        }
        return Finding(key=key, **values | changes)

    return make


@pytest.fixture
def alert():
    def make(**changes):
        values = {
            "id": "run-1/dead_units:fc1/100/open",
            "run": "run-1",
            "run_name": "digits",
            "project": "p",
            "group": "dead_units:fc1",
            "rule": "dead_units",
            "kind": "open",
            "severity": "critical",
            "over": False,
            "title": "90 % of the units of fc1 are dead",
            "layers": "fc1",
            "first_step": 100,
            "last_step": 120,
            "seen": "0.9",
            "expected": "at most 0.5",
            "remedy": "Lower the learning rate.",
            "diff": "",
            "consequences": [],
            "more_consequences": 0,
            "link": "http://127.0.0.1:7070/runs/run-1",
            "time": 1e9,
            "opened": 1e9,
        }
        return Alert(**values | changes)

    return make


class Receiver:
    """Answers POSTs with `status` and `headers`, keeps what it got."""

    def __init__(self):
        self.status = 200
        self.headers = {}
        self.got = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, dict(self.headers), body))
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - a followed redirect would come as GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()
