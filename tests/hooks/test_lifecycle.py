"""How runs begin and end: settings, imports, exits, kills and forks, each in a process of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import trainvitals.hooks as tv
from trainvitals.hooks import launch, settings, spool
from trainvitals.hooks.wire.records import End, Event, Start, Step
from trainvitals.hooks.wire.scalars import expand

TRAINER = """
import sys, torch, trainvitals.hooks as tv
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
tv.watch(model, optimizer, interval=1)
def train(steps):
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).sum().backward()
        optimizer.step()
        tv.log({"loss": step})
        if step == 50:
            print("under way", flush=True)
"""


def run_python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={
            **os.environ,
            "TRAINVITALS_DIR": str(folder),
            "TRAINVITALS_MODE": "offline",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def only_stream(folder: Path) -> list[Any]:
    (stream,) = spool.find_streams(folder / ".trainvitals")
    return [step for record in spool.read_stream(stream) for step in expand(record)]


@pytest.mark.parametrize(
    "module", ["", ".wire.codec", ".spool", ".sender", ".client", ".recorder", ".settings"]
)
def test_the_light_modules_load_no_torch(module: str, tmp_path: Path) -> None:
    code = f"import sys, trainvitals.hooks{module}; sys.exit('torch' in sys.modules or 'flask' in sys.modules)"
    assert run_python(code, tmp_path).returncode == 0


@pytest.mark.slow
def test_a_script_that_ends_has_finished_its_run(tmp_path: Path) -> None:
    done = run_python(TRAINER + "train(5)", tmp_path)
    assert done.returncode == 0, done.stderr
    records = only_stream(tmp_path)
    assert isinstance(records[0], Start)
    assert isinstance(records[-1], End) and records[-1].status == "finished"
    assert records[-1].step == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("train(3); raise RuntimeError('out of luck')", "failed", "RuntimeError: out of luck"),
        ("train(3); raise KeyboardInterrupt", "interrupted", "KeyboardInterrupt"),
        ("\nwith tv.init(): raise ValueError('inside')", "failed", "ValueError: inside"),
    ],
)
def test_an_uncaught_exception_is_the_end_status(
    tmp_path: Path, code: str, status: str, message: str
) -> None:
    done = run_python(TRAINER + code, tmp_path)
    assert done.returncode != 0
    streams = spool.find_streams(tmp_path / ".trainvitals")
    ends = [list(spool.read_stream(stream))[-1] for stream in streams]
    assert (status, message) in [(end.status, end.message) for end in ends]


@pytest.mark.slow
def test_a_killed_training_keeps_what_was_recorded(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER + "train(10**9)"],
        env={**os.environ, "TRAINVITALS_DIR": str(tmp_path), "TRAINVITALS_MODE": "offline"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        time.sleep(1.0)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    records = only_stream(tmp_path)
    assert sorted({record.seq for record in records}) == list(range(records[-1].seq + 1))
    logged = [r.step for r in records if isinstance(r, Step) and "loss" in r.scalars]
    assert logged[:51] == list(range(51))
    assert not isinstance(records[-1], End)


@pytest.mark.slow
def test_a_nan_is_on_disk_before_the_process_can_die(tmp_path: Path) -> None:
    code = """
    import os, signal
    train(2)
    optimizer.zero_grad()
    model(torch.full((1, 4), float("nan"))).sum().backward()
    os.kill(os.getpid(), signal.SIGKILL)
    """
    run_python(TRAINER + textwrap.dedent(code), tmp_path)
    (event,) = [record for record in only_stream(tmp_path) if isinstance(record, Event)]
    assert event.kind == "nonfinite"
    assert event.data["direction"] == "input"


@pytest.mark.slow
def test_a_forked_child_records_nothing(tmp_path: Path) -> None:
    code = """
    import os
    train(3)
    if os.fork() == 0:
        torch.set_num_threads(1)
        train(5)
        sys.exit(0)
    os.wait()
    train(2)
    """
    done = run_python(TRAINER + textwrap.dedent(code), tmp_path)
    assert done.returncode == 0, done.stderr
    for stream in spool.find_streams(tmp_path / ".trainvitals"):
        records = [step for record in spool.read_stream(stream) for step in expand(record)]
        steps = [r.step for r in records if isinstance(r, Step) and "tv/grad_norm" in r.scalars]
        assert steps in ([0, 1, 2, 3, 4], [])


def test_other_ranks_record_nothing_unless_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = tv.init()
    run.log({"loss": 1.0})
    tv.finish()
    assert not run.recording
    assert "rank 1 records nothing" in capsys.readouterr().err
    assert spool.find_streams(tmp_path / ".trainvitals") == []
    monkeypatch.setenv("TRAINVITALS_RUN_ID", "shared")
    tv.init()
    tv.finish()
    (stream,) = spool.find_streams(tmp_path / ".trainvitals")
    assert stream.parent.name == "shared"
    assert stream.name.endswith("-r1")


def test_a_disabled_run_writes_nothing(tmp_path: Path, train: Any) -> None:
    import torch

    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tv.init(mode="disabled") as run:
        tv.watch(model, optimizer, strict=True)
        train(model, optimizer, 2)
        tv.log({"loss": 1.0})
        tv.batch(None, torch.zeros(3))
    assert run.finished and run.url == ""
    assert not (tmp_path / ".trainvitals").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    run = tv.init()
    run.log({"loss": 1.0})
    assert capsys.readouterr().err.count("cannot write") == 1


def test_a_file_in_the_place_of_the_folder_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".trainvitals").write_text("in the way")
    run = tv.init()
    run.log({"loss": 1.0})
    run.finish()
    assert capsys.readouterr().err.count("cannot write") == 1


def test_arguments_come_before_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINVITALS_PROJECT", "from-variable")
    monkeypatch.setenv("TRAINVITALS_RUN_NAME", "name-from-variable")
    monkeypatch.setenv("TRAINVITALS_TAGS", "a, b,")
    resolved = settings.resolve(project="from-argument")
    assert resolved.project == "from-argument"
    assert resolved.name == "name-from-variable"
    assert resolved.tags == ["a", "b"]
    assert resolved.url == settings.DEFAULT_URL
    assert resolved.mode == "offline"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "cloud"}, "mode must be one of"),
        ({"id": "../etc"}, "is no run id"),
        ({"url": "localhost:7070"}, "url must look like"),
        ({"config": [1]}, "config must be a mapping"),
        ({"tags": "one"}, "tags must be a list"),
    ],
)
def test_wrong_settings_raise_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        tv.init(**arguments)


def test_config_is_cleaned_and_secrets_are_hidden() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "<odd " + "x" * 5000 + ">"

    cleaned = settings.clean_config(
        {
            "lr": 1e-3,
            "layers": (1, 2),
            "path": Path("/data"),
            "api_key": "k-123",
            "tokens": None,
            "max_tokens_per_batch": 512,
            "nested": {"password": "p", "depth": 3},
            "odd": Odd(),
            "big": 2**80,
            3: "number as key",
        }
    )
    assert cleaned["lr"] == 1e-3
    assert cleaned["layers"] == [1, 2]
    assert cleaned["api_key"] == "(hidden)"
    assert cleaned["max_tokens_per_batch"] == 512
    assert cleaned["nested"] == {"password": "(hidden)", "depth": 3}
    assert len(str(cleaned["odd"])) == 1000
    assert cleaned["big"] == str(2**80)
    assert cleaned["3"] == "number as key"


def test_a_large_config_is_cut() -> None:
    cleaned = settings.clean_config({"big": ["x" * 1000] * 900, "lr": 1.0})
    assert cleaned == {"big": "(left out: too large)", "lr": 1.0}


def test_later_attempts_sort_after_earlier_ones() -> None:
    first = launch.ids().attempt
    time.sleep(0.002)
    assert first < launch.ids().attempt
