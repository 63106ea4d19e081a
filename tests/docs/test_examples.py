"""What the README and the docs show, runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{index}", code)
        for page in PAGES
        for index, code in enumerate(BLOCK.findall(page.read_text()))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in blocks()])
def test_an_example_runs_word_for_word(code, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(code)
    environment = os.environ | {"TRAINVITALS_URL": "http://127.0.0.1:9"}  # nobody listens there
    run = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file(page):
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing
