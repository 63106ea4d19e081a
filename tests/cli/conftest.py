"""Commands as a terminal would give them, in this process."""

import os

import pytest
from click.testing import CliRunner

from trainvitals.app.cli import main


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run a command in an empty folder with no settings but a database."""
    for name in list(os.environ):
        if name.startswith("TRAINVITALS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TRAINVITALS_DATABASE", str(tmp_path / "trainvitals.db"))
    monkeypatch.chdir(tmp_path)
    return lambda *words, **options: CliRunner().invoke(main, words, **options)
