"""`trainvitals doctor`: what is installed, what runs, what is left over, and what to do about it."""

import json
import os
import platform
import socket
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainvitals.app.cli.output import database_option, json_option, print_json, settings_from

if TYPE_CHECKING:
    from trainvitals.app.settings import Settings

NEEDED = (
    *("click", "flask", "gunicorn", "msgspec", "numpy", "platformdirs", "plotly"),
    *("sqlite-utils", "urllib3", "zstandard"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `remedy` is what to do when it isn't ok."""

    name: str
    ok: bool
    message: str
    remedy: str = ""


@click.command()
@click.option(
    "--url",
    envvar="TRAINVITALS_URL",
    help="Server that trainings send to (default http://127.0.0.1:7070).",
)
@database_option
@json_option
def doctor(url: str | None, database: Path | None, as_json: bool) -> None:
    """Check the installation, the database, the server and what trainings have left behind."""
    settings = settings_from(database=database)
    url = (url or settings.link_base).rstrip("/")
    checks = [
        _python(),
        _packages(),
        _torch(),
        _database(settings),
        *_server(settings, url),
        _leftovers(Path(".trainvitals"), url),
    ]
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            click.echo(f"{'ok     ' if check.ok else 'problem'}  {check.name}: {check.message}")
            if not check.ok:
                click.echo(f"         -> {check.remedy}")
    if not all(check.ok for check in checks):
        raise SystemExit(1)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()}"
    return Check("python", sys.version_info >= (3, 11), found, "Install Python 3.11 or newer.")


def _packages() -> Check:
    missing = [name for name in NEEDED if _version(name) is None]
    if missing:
        remedy = f"Run `pip install {' '.join(missing)}`."
        return Check("packages", False, f"missing: {', '.join(missing)}", remedy)
    return Check("packages", True, f"trainvitals {_version('trainvitals')}, all dependencies found")


def _torch() -> Check:
    found = _version("torch")  # not imported: that takes seconds
    return Check("torch", True, found or "not installed; only trainings and the demo need it")


def _version(name: str) -> str | None:
    try:
        return package_version(name)
    except PackageNotFoundError:
        return None


def _database(settings: "Settings") -> Check:
    from trainvitals.app.store import Store

    path = settings.database
    if not path.exists():
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        return Check(
            "database",
            os.access(folder, os.W_OK),
            f"{path} is not there yet; `trainvitals serve` creates it",
            f"Make {folder} writable, or name another file with TRAINVITALS_DATABASE.",
        )
    try:
        with Store.open(path) as store:
            runs = len(store.runs())
    except (
        Exception
    ) as error:  # the file may be anything, and whatever is wrong with it is the answer
        remedy = "Restore a copy, or move the file away and start anew."
        return Check("database", False, f"{path}: {error}", remedy)
    return Check(
        "database",
        os.access(path, os.W_OK),
        f"{path}: {runs} runs, {path.stat().st_size / 1e6:,.1f} MB",
        "Make the file writable.",
    )


def _server(settings: "Settings", url: str) -> list[Check]:
    import urllib3

    try:
        with urllib3.PoolManager() as pool:
            answer = pool.request("GET", f"{url}/version", timeout=3.0, retries=False)
        release = json.loads(answer.data)["version"]
    except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
        remedy = "Start it with `trainvitals serve`, or set TRAINVITALS_URL."
        server = Check("server", False, f"no trainvitals answers at {url}", remedy)
        return [server, _port(settings)]
    same = release == _version("trainvitals")
    remedy = "Bring trainvitals to the same release on both sides."
    return [Check("server", same, f"trainvitals {release} answers at {url}", remedy)]


def _port(settings: "Settings") -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", settings.port))
        except OSError:
            message = f"{settings.port} is taken by another program"
            return Check("port", False, message, "Choose another with --port or TRAINVITALS_PORT.")
    return Check("port", True, f"{settings.port} is free")


def _leftovers(folder: Path, url: str) -> Check:
    from trainvitals.hooks.spool import find_streams

    waiting = {stream: _waiting(stream) for stream in find_streams(folder)}
    total = sum(waiting.values())
    if not total:
        return Check("spool", True, f"nothing waits in {folder}")
    streams = sum(1 for number in waiting.values() if number)
    message = f"{total:,} records of {streams} stream(s) in {folder} are not delivered"
    return Check("spool", False, message, f"Run `trainvitals sync --url {url}`.")


def _waiting(stream: Path) -> int:
    from trainvitals.hooks.spool import read_acked, read_payloads
    from trainvitals.hooks.wire.codec import WireError

    acked, number = read_acked(stream), 0
    try:
        for _ in read_payloads(stream, start=acked):
            number += 1
    except (WireError, OSError):
        return number + 1  # a damaged file is for `sync` to report
    return number
