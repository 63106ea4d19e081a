"""`trainvitals demo`: a server and four live trainings, one healthy and three sick, and what was found in them."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import urllib3

from trainvitals.app.demo.inbox import Inbox
from trainvitals.app.demo.scenarios import SCENARIOS, Scenario

STEPS = 600
PAUSE_S = 0.025
"""Shortest time a step takes, seconds: slow enough to follow, quick enough to stay."""

_SETTLE_S = 45.0
"""How long the last findings and alerts may take after the trainings' end, seconds."""

_http = urllib3.PoolManager(timeout=5.0, retries=False)


class DemoError(Exception):
    """The demo could not run; the message says why."""


def run_demo(*, port: int, exit_when_done: bool, slack_webhook: str, data_dir: Path | None) -> int:
    """Run the demo and return the exit status: 0 when every training got the diagnosis that it deserves.

    Alerts go to `slack_webhook`, else to a small inbox page on loopback. Without `data_dir` everything lives in a
    temporary folder. Stays up until Ctrl-C unless `exit_when_done`.
    """
    with ExitStack() as stack:
        folder = data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="trainvitals-demo-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        if slack_webhook:
            inbox = None
        else:
            inbox = stack.enter_context(Inbox())
            click.echo(f"Inbox      {inbox.url}   (how alerts look in Slack)")
        url = stack.enter_context(_server(folder, port, slack_webhook or f"{inbox.url}/slack"))  # type: ignore[union-attr]
        click.echo(f"Dashboard  {url}")
        signal.signal(
            signal.SIGTERM, signal.default_int_handler
        )  # leave by the same door as Ctrl-C
        known = {run["id"] for run in _get(url, "/api/v1/runs")["runs"]}
        try:
            runs = _train(url, folder, known)
            good = _report(url, runs)
            if not exit_when_done:
                click.echo(f"\nThe dashboard stays up at {url}. Ctrl-C ends it.")
                while True:
                    time.sleep(3600)
        except KeyboardInterrupt:
            click.echo("\nStopped.")
            return 0
    return 0 if good else 1


@contextmanager
def _server(folder: Path, port: int, slack_webhook: str) -> Iterator[str]:
    command = [sys.executable, "-m", "trainvitals.app.cli", "serve", "--port", str(port)]
    command += ["--database", str(folder / "trainvitals.db")]
    log = folder / "server.log"
    with log.open("wb") as output:
        # A group of its own: Ctrl-C reaches the demo, which then stops the server in order.
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=output,
            env=os.environ | {"TRAINVITALS_SLACK_WEBHOOK": slack_webhook},
            start_new_session=True,
            text=True,
        )
        try:
            yield _address(server, log)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            if server.stdout is not None:
                server.stdout.close()


def _address(server: "subprocess.Popen[str]", log: Path) -> str:
    """The URL that the server prints; waits until it answers."""
    assert server.stdout is not None
    for line in server.stdout:
        words = [word for word in line.split() if word.startswith("http://")]
        if words:
            url = words[0]
            break
    else:
        raise DemoError(f"The server did not start:\n{log.read_text().strip()}")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if _http.request("GET", f"{url}/healthz").status == 200:
                return url
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.1)
    raise DemoError(f"The server does not answer at {url}:\n{log.read_text().strip()}")


def _train(url: str, folder: Path, known: set[str]) -> dict[str, dict[str, Any]]:
    """Train every scenario side by side under one progress bar; return the runs by name."""
    titles = {scenario.title for scenario in SCENARIOS.values()}
    environment = os.environ | {"TRAINVITALS_URL": url, "TRAINVITALS_DIR": str(folder / "spool")}
    with ExitStack() as stack:
        trainers = []
        for name in SCENARIOS:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            command = [
                sys.executable,
                "-m",
                "trainvitals.app.demo.trainings",
                name,
                str(STEPS),
                str(PAUSE_S),
            ]
            trainer = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            stack.callback(_stop, trainer)
            trainers.append((name, trainer))
        bar = stack.enter_context(
            click.progressbar(length=STEPS * len(trainers), label="Training  ")
        )
        while True:
            alive = any(trainer.poll() is None for _, trainer in trainers)
            runs = {
                run["name"]: run
                for run in _get(url, "/api/v1/runs")["runs"]
                if run["id"] not in known and run["name"] in titles
            }
            done = sum(max(0, run["last_step"] + 1) for run in runs.values())
            bar.update(done - bar.pos)
            if not alive:
                break
            time.sleep(0.5)
        bar.update(bar.length - bar.pos if bar.length else 0)
    for name, trainer in trainers:
        if trainer.returncode != 0:
            raise DemoError(
                f"The training {name!r} failed:\n{(folder / f'{name}.log').read_text().strip()}"
            )
    return runs


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        process.wait()


def _report(url: str, runs: dict[str, dict[str, Any]]) -> bool:
    """Print the verdict on each training; return whether all are as they should be."""
    deadline = time.monotonic() + _SETTLE_S
    good = True
    click.echo()
    for scenario in SCENARIOS.values():
        run = runs[scenario.title]
        roots = _settled_roots(url, run["id"], scenario, deadline)
        right = is_right(scenario, roots)
        good &= right
        click.echo(f"{'✓' if right else '✗'} {scenario.title:<20} {verdict(roots)}")
        click.echo(f"  {url}/runs/{run['id']}")
        for root in roots:
            click.echo(f"  Do this: {root['remedy']}")
    sick = [runs[scenario.title]["id"] for scenario in SCENARIOS.values() if scenario.root]
    delivered = _delivered(url, sick, deadline)
    click.echo(f"\nAlerts delivered: {delivered} (expected: one for each of {len(sick)} sick runs)")
    return good and delivered == len(sick)


def verdict(roots: list[dict[str, Any]]) -> str:
    """One line: "healthy", or the root causes."""
    if not roots:
        return "healthy"
    return "; ".join(
        f"{root['title']} [{root['rule']}, since step {root['first_step']}]" for root in roots
    )


def is_right(scenario: Scenario, roots: list[dict[str, Any]]) -> bool:
    """Whether `roots` (above info, most severe first) are the diagnosis that the scenario deserves."""
    if scenario.root is None:
        return not roots
    return (
        bool(roots)
        and roots[0]["rule"] == scenario.root
        and (not scenario.layers or not set(scenario.layers).isdisjoint(roots[0]["layers"]))
    )


def _settled_roots(url: str, run: str, scenario: Scenario, deadline: float) -> list[dict[str, Any]]:
    while True:
        findings = _get(url, f"/api/v1/runs/{run}/findings")["findings"]
        roots = [
            finding for finding in findings if finding["root"] and finding["severity"] != "info"
        ]
        judged = _get(url, f"/api/v1/runs/{run}")["judged"]
        if (judged and is_right(scenario, roots)) or time.monotonic() > deadline:
            return roots
        time.sleep(0.3)


def _delivered(url: str, runs: list[str], deadline: float) -> int:
    while True:
        deliveries = [
            delivery
            for delivery in _get(url, "/api/v1/alerts")["deliveries"]
            if delivery["run"] in runs and delivery["state"] == "delivered"
        ]
        if (
            len({delivery["run"] for delivery in deliveries}) == len(runs)
            or time.monotonic() > deadline
        ):
            return len(deliveries)
        time.sleep(0.3)


def _get(url: str, path: str) -> dict[str, Any]:
    answer = _http.request("GET", url + path)
    if answer.status != 200:
        raise DemoError(f"GET {path} answered {answer.status}: {answer.data[:500]!r}")
    body: dict[str, Any] = json.loads(answer.data)
    return body
