"""A real server tells a real training what it found, and the training does what was asked for."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys, time, torch
from torch import nn
import trainvitals.hooks as tv

asked = sys.argv[1]
if asked == "call":
    asked = lambda finding: print("told", finding.rule, finding.severity, type(finding).__name__, flush=True)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
tv.init(project="stream", on_finding=asked)
tv.watch(model, optimizer)
end = time.monotonic() + 40
while time.monotonic() < end and not tv.should_stop():
    loss = model(torch.randn(32, 8)).square().mean()
    loss.backward()  # and the gradients are never cleared
    optimizer.step()
    time.sleep(0.01)
    if sys.argv[1] == "call" and tv.current_run().completed > 600:
        break
print("stopped", time.monotonic() < end, flush=True)
"""


@pytest.mark.parametrize("asked", ["stop", "raise", "call"])
def test_what_the_server_finds_reaches_the_training(server, tmp_path, asked):
    server.start()
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, asked],
        cwd=tmp_path,
        env={"TRAINVITALS_URL": server.url, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if asked == "raise":
        assert run.returncode == 1
        assert "FindingError: grad-not-zeroed: Gradients are never set to zero" in run.stderr
        assert "optimizer.step()" in run.stderr
    else:
        assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "stopped True"), run.stderr
    if asked == "call":
        assert run.stdout.count("told grad-not-zeroed critical Finding") == 1
    elif asked == "stop":
        assert "asked to stop: Gradients are never set to zero" in run.stderr
