"""`trainvitals runs`: list, show, archive, remove and restore."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainvitals.app.cli.output import (
    database_option,
    existing_store,
    json_option,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from trainvitals.app.store.types import Shelf

_several = click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)


@click.group()
def runs() -> None:
    """Look at, put away, remove or restore what is stored."""


@runs.command("ls")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option(
    "--shelf",
    type=click.Choice(["active", "archived", "deleted"]),
    default="active",
    help="Which runs: in sight, put away, or deleted and still to be restored.",
)
@database_option
@json_option
def list_runs(limit: int, shelf: "Shelf", database: Path | None, as_json: bool) -> None:
    """List runs, the newest first."""
    from trainvitals.app.store.status import status

    with existing_store(database) as store:
        found, counts, now = (
            store.runs(limit=limit, shelf=shelf),
            store.finding_counts(),
            time.time(),
        )
    listed = [
        {
            "id": run.id,
            "project": run.project,
            "name": run.name,
            "status": status(run, now),
            "last_step": run.last_step,
            "created": run.created,
            "open_findings": counts.get(run.id, {}),
        }
        for run in found
    ]
    if as_json:
        print_json(listed)
    elif not listed and shelf != "active":
        click.echo(f"No {shelf} runs.")
    elif not listed:
        click.echo(
            "No runs yet. Attach to a training with trainvitals.hooks, or try `trainvitals demo`."
        )
    else:
        print_table(
            ["RUN", "PROJECT", "NAME", "STATUS", "LAST STEP", "BEGUN", "OPEN FINDINGS"],
            [
                [*list(entry.values())[:5], _local(run.created), _counts(entry["open_findings"])]
                for entry, run in zip(listed, found, strict=True)
            ],
        )


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@database_option
@json_option
def show_run(run_id: str, database: Path | None, as_json: bool) -> None:
    """Show one run and what was found in it."""
    from trainvitals.app.store.status import status

    with existing_store(database) as store:
        run = store.run(run_id)
        if run is None:
            raise click.ClickException(
                f"There is no run {run_id!r}. `trainvitals runs ls` lists them."
            )
        findings = store.findings(run_id)
    state = status(run, time.time())
    if as_json:
        print_json({"run": run, "status": state, "findings": findings})
        return
    click.echo(f"{run.name} ({run.id}), project {run.project}: {state}, last step {run.last_step}")
    if run.end_message:
        click.echo(f"Ended with: {run.end_message}")
    for key, value in run.config.items():
        click.echo(f"  {key} = {value}")
    if not findings:
        click.echo("No findings.")
        return
    print_table(
        ["SEVERITY", "STATE", "SINCE STEP", "FINDING"],
        [
            [item.severity, item.state, item.first_step, ("" if item.root else "↳ ") + item.title]
            for item in findings
        ],
    )


@runs.command("rm")
@_several
@click.option("--yes", is_flag=True, help="Don't ask.")
@database_option
def remove_runs(run_ids: tuple[str, ...], yes: bool, database: Path | None) -> None:
    """Remove runs. They can be restored until retention purges them."""
    with existing_store(database) as store:
        missing = [run_id for run_id in run_ids if store.run(run_id) is None]
        if missing:
            raise click.ClickException(f"There is no run {missing[0]!r}. Nothing was removed.")
        if not yes:
            click.confirm(f"Remove {len(run_ids)} run(s)?", abort=True)
        _each(run_ids, "Removed", lambda run_id: store.delete_run(run_id, time.time()))


@runs.command("restore")
@_several
@database_option
def restore_runs(run_ids: tuple[str, ...], database: Path | None) -> None:
    """Bring removed runs back (`runs ls --shelf deleted` lists them)."""
    with existing_store(database) as store:
        _each(run_ids, "Restored", store.restore_run)


@runs.command("archive")
@_several
@database_option
def archive_runs(run_ids: tuple[str, ...], database: Path | None) -> None:
    """Put runs away: out of the list, and kept whatever retention says."""
    with existing_store(database) as store:
        _each(run_ids, "Archived", lambda run_id: store.archive_run(run_id, time.time()))


@runs.command("unarchive")
@_several
@database_option
def unarchive_runs(run_ids: tuple[str, ...], database: Path | None) -> None:
    """Bring archived runs back into the list."""
    with existing_store(database) as store:
        _each(run_ids, "Unarchived", store.unarchive_run)


def _each(run_ids: tuple[str, ...], done: str, change: Callable[[str], bool]) -> None:
    """Do it to every run; ends with exit code 1 where one of them was not there to do it to."""
    failed = False
    for run_id in run_ids:
        if change(run_id):
            click.echo(f"{done} {run_id}.")
        else:
            failed = True
            click.echo(f"Not {done.lower()}: there is no such run {run_id!r}.", err=True)
    if failed:
        raise SystemExit(1)


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _counts(counts: object) -> str:
    if not isinstance(counts, dict):
        return ""
    return ", ".join(f"{number} {severity}" for severity, number in counts.items() if number)
