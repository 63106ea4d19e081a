"""The scripts: their own tests, and who may call what."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "static" / "js"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_scripts_pass_their_own_tests():
    files = sorted(str(path) for path in (ROOT / "tests" / "static").glob("*.test.mjs"))
    run = subprocess.run(
        ["node", "--no-warnings", "--test", *files], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("call", "only"), [(r"\bfetch\(", "api.js"), (r"\bPlotly\.\w+\(", "explore.js")]
)
def test_one_module_only_calls(call, only):
    callers = {path.name for path in SCRIPTS.glob("*.js") if re.search(call, path.read_text())}
    assert callers == {only}
