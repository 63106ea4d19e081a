"""Real servers and real trainers, as processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import urllib3

SCRIPT = """
import sys, time, torch
from torch import nn
import trainvitals.hooks as tv

steps, pause = int(sys.argv[1]), float(sys.argv[2])
broken = int(sys.argv[3])  # the step whose batch holds a NaN
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
run = tv.init(project="stream", name="trainer")
print(run.id, flush=True)
tv.watch(model, optimizer)
for step in range(steps):
    x = torch.randn(32, 8)
    if step == broken:
        x[0, 0] = float("nan")
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    tv.log({"train/loss": loss, "train/index": step})
    print(step, flush=True)
    time.sleep(pause)
tv.finish()
"""


class Server:
    """`trainvitals serve` on a database of its own; can be killed and started again at the same port."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "trainvitals.db"
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.environment: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        command = [sys.executable, "-m", "trainvitals.app.cli", "serve", "--port", str(self.port)]
        command += ["--database", str(self.database)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | self.environment
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "http://" in line:
                address = next(word for word in line.split() if word.startswith("http://"))
                self.port = int(address.rstrip("/").rsplit(":", 1)[1])
                break
        wait_for(lambda: self.answers("/healthz"))
        return self

    def answers(self, path: str) -> bool:
        try:
            return urllib3.request("GET", self.url + path, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def get(self, path: str) -> dict:
        answer = urllib3.request("GET", self.url + path)
        assert answer.status == 200, answer.data
        return json.loads(answer.data)

    def until(self, condition: Callable[[], object]) -> None:
        wait_for(condition)

    def kill(self) -> None:
        """kill -9 of every process of the server at once."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid)]
        family += family[0].children(recursive=True)
        for member in family:
            member.send_signal(signal.SIGKILL)
        self.close()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self.close()
        return code

    def close(self) -> None:
        if self.process is not None:
            self.process.wait(20)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


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
        script = tmp_path / "train.py"
        script.write_text(SCRIPT)
        process = subprocess.Popen(
            [sys.executable, str(script), str(steps), str(pause_s), str(broken)],
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
