"""The commands, in this process."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainvitals.app.cli import main
from trainvitals.app.settings import SETTINGS
from trainvitals.app.store import Store
from trainvitals.hooks.wire.records import Batch, Start, Step

DOCS = Path(__file__).parent.parent.parent / "docs" / "cli.md"
COMMANDS = list(main.commands)


@pytest.fixture
def stored(tmp_path):
    """A run in the database."""
    records = [
        Start(seq=0, time=1e9, project="digits", name="a \x1b[31mname", config={"lr": 0.1}),
        *(Step(seq=n, time=1e9, step=n - 1, scalars={"loss": 1 / n}) for n in range(1, 20)),
    ]
    batch = Batch(version=1, run="run-1", attempt="a1", rank=0, first=0, records=records)
    with Store.open(tmp_path / "trainvitals.db") as store:
        store.append(batch, time.time())
    return "run-1"


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["runs", "ls"]])
def test_every_command_has_help(cli, command):
    result = cli(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_the_version_is_told(cli):
    assert cli("version").output.startswith("trainvitals ")
    assert set(json.loads(cli("version", "--json").output)) == {"version"}


def test_the_version_loads_neither_server_nor_torch():
    code = (
        "import sys\nfrom trainvitals.app.cli import main\n"
        "main(['version'], standalone_mode=False)\n"
        "print(sorted({'torch', 'flask', 'plotly', 'numpy', 'gunicorn'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_without_a_database_the_message_says_what_to_do(cli):
    result = cli("runs", "ls")
    assert result.exit_code == 1
    assert "trainvitals serve" in result.stderr
    assert not Path("trainvitals.db").exists()


def test_a_file_that_is_no_database_is_refused(cli):
    Path("notes.txt").write_text("not a database" * 100)
    result = cli("runs", "ls", "--database", "notes.txt")
    assert result.exit_code == 1
    assert "notes.txt" in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert Path("notes.txt").read_text() == "not a database" * 100


def test_runs_are_listed_shown_and_removed(cli, stored):
    assert stored in cli("runs", "ls").output
    (listed,) = json.loads(cli("runs", "ls", "--json").output)
    assert (listed["id"], listed["last_step"], listed["status"]) == (stored, 18, "running")
    assert json.loads(cli("runs", "show", stored, "--json").output)["run"]["id"] == stored
    assert cli("runs", "rm", stored, input="n\n").exit_code == 1
    assert cli("runs", "rm", stored, "--yes").exit_code == 0
    assert json.loads(cli("runs", "ls", "--json").output) == []


def test_a_name_can_not_control_the_terminal(cli, stored):
    for command in (["runs", "ls"], ["runs", "show", stored]):
        assert "\x1b" not in cli(*command).output


@pytest.mark.parametrize("command", [["runs", "show", "nope"], ["runs", "rm", "nope", "--yes"]])
def test_an_unknown_run_is_an_error(cli, stored, command):
    result = cli(*command)
    assert result.exit_code == 1
    assert "nope" in result.stderr


@pytest.mark.parametrize("target", ["nope", ".", "trainvitals.db"])
def test_diagnosing_nothing_is_an_error_that_names_it(cli, target):
    result = cli("diagnose", target, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr) > 20


def test_a_stored_run_is_diagnosed(cli, stored):
    result = cli("diagnose", stored, "--json")
    assert result.exit_code == 0, result.output
    assert isinstance(json.loads(result.stdout), list)
    assert cli("diagnose", stored).exit_code == 0
    assert cli("diagnose", "trainvitals.db", "--json").stdout == result.stdout


def test_signs_that_a_root_tells_of_are_not_listed_under_it(cli, made_run, fill, tmp_path):
    fill(tmp_path / "trainvitals.db", made_run("sick", steps=400, sick=True).end("failed"))
    told = cli("diagnose", "trainvitals.db").stdout
    assert told.count("Learning rate rose") == 1
    assert "↳ block2.conv1: activations left their usual size" in told


def test_syncing_nothing_is_an_error(cli):
    result = cli("sync")
    assert result.exit_code == 1
    assert ".trainvitals" in result.stderr


def test_testing_alerts_without_a_channel_is_an_error(cli):
    result = cli("alerts", "test")
    assert result.exit_code == 1
    assert "TRAINVITALS_SLACK_WEBHOOK" in result.stderr


def test_a_channel_that_fails_is_named_without_its_address(cli):
    result = cli("alerts", "test", "--webhook-url", "http://127.0.0.1:9/secret", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["ok"] is False
    assert "secret" not in result.output


def test_the_delivery_log_is_listed(cli, stored):
    assert json.loads(cli("alerts", "ls", "--json").output) == []


def test_the_doctor_says_what_is_wrong_and_what_to_do(cli, monkeypatch):
    monkeypatch.setenv("TRAINVITALS_PORT", "9")
    result = cli("doctor", "--url", "http://127.0.0.1:9", "--json")
    checks = {check["name"]: check for check in json.loads(result.output)}
    assert result.exit_code == 1
    assert checks["python"]["ok"] and checks["packages"]["ok"] and checks["spool"]["ok"]
    assert not checks["server"]["ok"]
    assert "trainvitals serve" in checks["server"]["remedy"]
    assert "-> Start it" in cli("doctor", "--url", "http://127.0.0.1:9").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "70000"], "port"),
        (["--workers", "0"], "workers"),
        (["--slack-webhook", "hooks.slack.com/secret"], "slack_webhook"),
        (["--webhook-url", "ftp://secret"], "webhook_url"),
        (["--host", "0.0.0.0"], "token"),
        (["--host", "no.such.host.invalid", "--token", "t"], "no.such.host.invalid"),
    ],
)
def test_serve_refuses_what_can_not_work(cli, words, said):
    result = cli("serve", *words)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.output


def test_every_setting_is_documented():
    text = DOCS.read_text()
    for setting in SETTINGS:
        assert f"`{setting.env}` | {setting.help}" in text


def test_every_command_is_documented():
    text = DOCS.read_text()
    for name in main.commands:
        assert f"## `trainvitals {name}" in text
