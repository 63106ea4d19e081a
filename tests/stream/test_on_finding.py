"""A real server tells a real training what it found, and the training does what was asked for."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys, time, torch
from torch import nn
import trainvitals.hooks as tv

told = []
asked = told.append if sys.argv[1] == "call" else sys.argv[1]
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
tv.init(project="stream", on_finding=asked)
tv.watch(model, optimizer)
end, after = time.monotonic() + 60, 0
while time.monotonic() < end and after < 30 and not tv.should_stop():
    loss = model(torch.randn(32, 8)).square().mean()
    loss.backward()  # and the gradients are never cleared
    optimizer.step()
    time.sleep(0.01)
    after += bool(told)
for finding in told:
    print(type(finding) is tv.Finding, finding.rule, finding.severity, flush=True)
print("in time", time.monotonic() < end, flush=True)
"""


@pytest.mark.parametrize("asked", ["stop", "call"])
def test_what_the_server_finds_reaches_the_training(server, tmp_path, asked):
    server.start()
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, asked],
        cwd=tmp_path,
        env=os.environ | {"TRAINVITALS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = run.stdout.splitlines()
    assert (run.returncode, said[-1]) == (0, "in time True"), run.stderr
    if asked == "call":
        assert said.count("True grad-not-zeroed critical") == 1
    else:
        assert "asked to stop: Gradients are never set to zero" in run.stderr
