"""Real servers and real trainers, as processes."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.stream import trainer as training
from benchmarks.stream.server import Server


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    if server.process is not None:
        server.kill()


@pytest.fixture
def receiver():
    """A real HTTP receiver of webhooks; `messages` holds (idempotency key, body) of each it took."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            http.messages.append((self.headers["Idempotency-Key"], json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.messages = []
    http.url = f"http://127.0.0.1:{http.server_address[1]}/hook"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


@pytest.fixture
def trainer(tmp_path):
    """Start a trainer in a process of its own; returns it and its run id."""
    started = []

    def start(
        url: str, steps: int, pause_s: float = 0.01, broken: int = -1
    ) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, str(training.__file__), str(steps), str(pause_s), str(broken)],
            cwd=tmp_path,
            env=os.environ | {"TRAINVITALS_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
