"""Kill -9 the server again and again while runs fall sick, and count what arrives."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.alerts import sick
from benchmarks.alerts.receivers import Receivers

READY_S = 60.0
DRAINED_S = 150.0
"""Longer than the lease of a message that a killed server was sending."""


def measure(kills: int, *, runs_a_kill: int = 2, seed: int = 1) -> dict[str, object]:
    """What arrived of the alerts of `kills * runs_a_kill` runs over `kills` kills of the server."""
    chance = random.Random(seed)
    names = [f"run-{number:03}" for number in range(kills * runs_a_kill)]
    waiting = list(names)
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder, Receivers() as receivers:
        for number in range(kills + 1):
            server = _start(Path(folder) / "alerts.db", port, receivers)
            try:
                _until_answers(port)
                for _ in range(runs_a_kill):
                    if waiting and sick.send(port, waiting[0], time.time()):
                        waiting.pop(0)
                if number < kills:
                    time.sleep(chance.uniform(0.2, 3.0))
                    _kill(server, everything=number % 2 == 0)
            except BaseException:
                _kill(server, everything=True)
                raise
        while waiting:
            if sick.send(port, waiting[0], time.time()):
                waiting.pop(0)
        wanted = set(names)
        deadline = time.monotonic() + DRAINED_S
        while time.monotonic() < deadline and any(
            {run for _, _, run in receivers.got[channel]} < wanted
            for channel in ("slack", "webhook", "email")
        ):
            time.sleep(0.5)
        time.sleep(3)
        _kill(server, everything=True)
        return {
            "kills": kills,
            "runs": len(wanted),
            **{channel: count(receivers.got[channel], wanted) for channel in receivers.got},
        }


def count(got: list[tuple[float, str, str]], wanted: set[str]) -> dict[str, object]:
    """How much of the alerts about the runs `wanted` arrived, each of which has one."""
    arrived = Counter(run for _, _, run in got)
    keys = Counter(key for _, key, _ in got)
    times = sorted(moment for moment, _, _ in got)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return {
        "arrived": len(got),
        "lost": len(wanted - set(arrived)),
        "repeated under the same id": sum(count - 1 for count in keys.values()),
        "doubled": sum(count - 1 for count in arrived.values())
        - sum(count - 1 for count in keys.values()),
        "shortest gap, s": round(min(gaps), 3) if gaps else None,
    }


def _start(database: Path, port: int, receivers: Receivers) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "trainvitals.app.cli", "serve"),
            *("--database", str(database), "--port", str(port)),
        ],
        env=os.environ | receivers.environment | {"TRAINVITALS_WORKERS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _kill(server: "subprocess.Popen[bytes]", *, everything: bool) -> None:
    """Kill the server; `everything`: at once with its workers and its evaluator, which else find out by themselves."""
    family = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    server.send_signal(signal.SIGKILL)
    for process in family if everything else []:
        if process.is_running():
            process.kill()
    server.wait()


def _until_answers(port: int) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError("The server does not answer.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
