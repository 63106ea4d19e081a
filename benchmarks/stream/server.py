"""`trainvitals serve` in processes of its own: started, measured, killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import urllib3


class Server:
    """A server on a database of its own; can be killed and started again at the same port."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "trainvitals.db"
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.environment: dict[str, str] = {}
        self.log: Path | None = None
        """Where what the server prints as errors goes; None for the terminal."""

    @property
    def url(self) -> str:
        """Its address, once it was started."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "trainvitals.app.cli", "serve", "--port", str(self.port)]
        command += ["--database", str(self.database)]
        errors = None if self.log is None else self.log.open("a")
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | self.environment,
        )
        if errors is not None:
            errors.close()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "http://" in line:
                address = next(word for word in line.split() if word.startswith("http://"))
                self.port = int(address.rstrip("/").rsplit(":", 1)[1])
                break
        wait_for(lambda: self.answers("/healthz"))
        return self

    def answers(self, path: str) -> bool:
        """Whether `path` is answered with 200."""
        try:
            return urllib3.request("GET", self.url + path, retries=False, timeout=5).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def get(self, path: str) -> dict[str, Any]:
        """The JSON at `path`."""
        answer = urllib3.request("GET", self.url + path)
        assert answer.status == 200, answer.data
        document: dict[str, Any] = json.loads(answer.data)
        return document

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that the server does."""
        wait_for(condition)

    def family(self) -> dict[str, list[psutil.Process]]:
        """The processes that live: "master", "worker" and "evaluator"."""
        assert self.process is not None
        found: dict[str, list[psutil.Process]] = {"master": [], "worker": [], "evaluator": []}
        try:
            master = psutil.Process(self.process.pid)
            found["master"].append(master)
            for child in master.children(recursive=True):
                judges = "trainvitals.app.evaluator" in " ".join(child.cmdline())
                found["evaluator" if judges else "worker"].append(child)
        except psutil.NoSuchProcess:
            pass
        return found

    def kill(self) -> None:
        """kill -9 of every process of the server at once."""
        for members in self.family().values():
            for member in members:
                member.send_signal(signal.SIGKILL)
        self.close()

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self.close()
        return code

    def close(self) -> None:
        """Reap it after its end."""
        if self.process is not None:
            self.process.wait(20)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None


def processor_seconds(members: list[psutil.Process]) -> float:
    """User and system time that these processes have taken so far."""
    times = [member.cpu_times() for member in members]
    return sum(time.user + time.system for time in times)


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Ask until `condition` holds. Raises AssertionError when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
