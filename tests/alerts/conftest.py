"""Findings, alerts and a receiver on loopback."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trainvitals.app.alerts.base import Channel
from trainvitals.app.alerts.dispatch import Dispatcher
from trainvitals.app.alerts.message import Alert
from trainvitals.app.alerts.plan import plan
from trainvitals.app.rules.finding import Finding
from trainvitals.app.store import Store
from trainvitals.hooks.wire.records import Batch, Start, Step


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


class Recorder(Channel):
    """Keeps what it is sent; fails with `error` while there is one."""

    key = "recorder"

    def __init__(self, key="recorder"):
        self.key = key
        self.got = []
        self.tries = 0
        self.error = None

    @classmethod
    def from_settings(cls, settings):
        return None

    title = "Recorder"
    address = "a list"

    def payload(self, alert):
        return {}

    def send(self, alert):
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.got.append(alert)


class Outbox:
    """A store with one run, and findings that change as an evaluator would change them."""

    def __init__(self, store):
        self.store = store
        self.now = time.time()
        self._seq = 0
        self._findings = []
        self._record()

    def _record(self):
        record = (
            Start(seq=0, time=1e9, project="p", name="digits")
            if self._seq == 0
            else Step(seq=self._seq, time=1e9, step=self._seq, scalars={"loss": 1.0})
        )
        batch = Batch(
            version=1, run="run-1", attempt="a1", rank=0, first=self._seq, records=[record]
        )
        self.store.append(batch, self.now)
        self._seq += 1

    def find(self, *findings):
        """Let the findings be these from now on."""
        self._record()
        assert self.store.claim("me", 60.0, self.now) == ["run-1"]
        rows = plan("run-1", self._findings, findings, self.now)
        self.store.commit_evaluation(
            "run-1", "me", {"a1/0": self._seq}, None, list(findings), rows, self.now
        )
        self._findings = list(findings)

    def beat(self):
        """A heartbeat of the run."""
        batch = Batch(version=1, run="run-1", attempt="a1", rank=0, first=self._seq, records=[])
        self.store.append(batch, self.now)

    def states(self, channel="recorder"):
        found = self.store.deliveries("run-1", limit=100)
        return {item.id.rpartition("/")[2]: item.state for item in found if item.channel == channel}


@pytest.fixture
def outbox(tmp_path):
    with Store.open(tmp_path / "trainvitals.db") as store:
        yield Outbox(store)


@pytest.fixture
def channel():
    return Recorder()


@pytest.fixture
def recorder():
    return Recorder


@pytest.fixture
def dispatcher(outbox, channel):
    return Dispatcher(outbox.store, [channel], "http://here")
