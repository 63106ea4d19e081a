"""The demo is the main job: attach, stream, store, judge, see, be told."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from trainvitals.app.demo import is_right, verdict
from trainvitals.app.demo.scenarios import SCENARIOS


@pytest.fixture
def receiver():
    """A real HTTP receiver; yields its URL and the bodies it got."""
    bodies = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/hook", bodies
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_demo_finds_what_is_wrong_and_says_it_once(receiver, tmp_path):
    url, bodies = receiver
    command = [sys.executable, "-m", "trainvitals.app.cli", "demo", "--exit", "--port", "0"]
    command += ["--slack-webhook", url, "--data", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "✓ healthy-cnn          healthy" in run.stdout
    opened = [body for body in bodies if "resolved" not in body.lower()]
    sick = [scenario for scenario in SCENARIOS.values() if scenario.root]
    for scenario in sick:
        assert sum(scenario.title in body for body in opened) == 1, bodies
    assert len(opened) == len(sick)


def test_a_healthy_run_must_have_no_root_and_a_sick_one_the_right_root_in_the_right_layer():
    root = {"rule": "dead-units-growing", "layers": ["relu2"], "title": "dead", "first_step": 7}
    assert is_right(SCENARIOS["healthy"], [])
    assert not is_right(SCENARIOS["healthy"], [root])
    assert is_right(SCENARIOS["dying"], [root])
    assert not is_right(SCENARIOS["dying"], [root | {"layers": ["fc1"]}])
    assert not is_right(SCENARIOS["dying"], [])


def test_the_verdict_names_rule_and_step():
    root = {
        "rule": "dead-relu-units",
        "layers": ["relu2"],
        "title": "relu2 is dead",
        "first_step": 7,
    }
    assert verdict([root]) == "relu2 is dead [dead-relu-units, since step 7]"
    assert verdict([]) == "healthy"
