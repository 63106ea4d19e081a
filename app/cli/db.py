"""`trainvitals db`: look after the database file."""

import sys
import time
from pathlib import Path

import click

from trainvitals.app.cli.output import (
    database_option,
    existing_file,
    existing_store,
    json_option,
    print_json,
    print_table,
    settings_from,
)


@click.group()
def db() -> None:
    """Check, copy, shrink, clear out or query the database."""


@db.command("info")
@database_option
@json_option
def show_info(database: Path | None, as_json: bool) -> None:
    """Show what the database holds."""
    with existing_store(database) as store:
        info = store.info()
    if as_json:
        print_json(info)
        return
    click.echo(f"{info.path}: {_size(info.bytes)}, {_size(info.free_bytes)} of it free")
    click.echo(f"schema version {info.schema}")
    click.echo(
        f"{info.runs} runs, {info.archived} of them archived, {info.deleted} deleted that can be restored, "
        f"{info.purging} being purged"
    )
    click.echo(f"retention: {settings_from().retention or 'everything is kept'}")
    if not info.shrinks:
        click.echo("The file never shrinks by itself; `trainvitals db vacuum` changes that.")


@db.command("check")
@database_option
@json_option
def check(database: Path | None, as_json: bool) -> None:
    """Check that the file is sound. Nothing is changed; may run beside a server."""
    from trainvitals.app.store import upkeep

    with existing_file(database) as path:
        problems = upkeep.check(path)
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    elif not problems:
        click.echo(f"{path} is sound.")
    if problems:
        for problem in problems if not as_json else ():
            click.echo(f"problem: {problem}", err=True)
        raise SystemExit(1)


@db.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@database_option
def backup(target: Path, database: Path | None) -> None:
    """Copy the database as it is now to the new file TARGET. May run beside a server."""
    with existing_file(database) as path:
        _copy(path, target)
    click.echo(f"{target}: {_size(target.stat().st_size)}")


@db.command("vacuum")
@database_option
def vacuum(database: Path | None) -> None:
    """Write the file anew without free room. A server beside it can't store anything meanwhile; trainings wait."""
    with existing_store(database) as store:
        before = store.info().bytes
        store.vacuum()
        after = store.info().bytes
    click.echo(f"{_size(before)} before, {_size(after)} now")


@db.command("upgrade")
@click.option("--backup", "target", type=click.Path(path_type=Path), help="Copy it there first.")
@database_option
def upgrade(target: Path | None, database: Path | None) -> None:
    """Bring the database to the schema of this release. Starting a server does so, too."""
    from trainvitals.app.store import upkeep

    with existing_file(database) as path:
        before = upkeep.version(path)
        if target is not None:
            _copy(path, target)
    with existing_store(database) as store:
        after = store.info().schema
    done = f"upgraded from {before}" if after != before else "nothing to do"
    click.echo(f"{path}: schema version {after}, {done}")


@db.command("prune")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--retention", help="Another policy than TRAINVITALS_RETENTION, for this time.")
@database_option
@json_option
def prune(
    dry_run: bool, yes: bool, retention: str | None, database: Path | None, as_json: bool
) -> None:
    """Remove what the retention policy says. A server does so by itself."""
    from trainvitals.app.janitor import clear

    policy, now = settings_from(retention=retention).policy, time.time()
    with existing_store(database) as store:
        due = store.removals(policy, now)
        if as_json:
            print_json(due)
        elif due:
            print_table(
                ["RUN", "PROJECT", "NAME", "WHAT", "FREES", "WHY"],
                [
                    [d.run, d.project, d.name, d.what, _size(d.bytes) if d.bytes else "", d.reason]
                    for d in due
                ],
            )
        else:
            click.echo("Nothing is due.")
        if dry_run:
            return
        if due and not yes:
            click.confirm("Remove that?", abort=True, err=as_json)
        before = store.info().bytes
        clear(store, due, now, time.sleep)
        after = store.info().bytes
    if not as_json:
        click.echo(f"{_size(before)} before, {_size(after)} now")


@db.command("sql")
@click.argument("query")
@database_option
@json_option
def query_database(query: str, database: Path | None, as_json: bool) -> None:
    """Run the SQL QUERY, which may read but not write (docs/database.md has examples)."""
    from trainvitals.app.store import sql

    with existing_file(database) as path:
        columns, rows = sql.query(path, query)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


def _copy(path: Path, target: Path) -> None:
    from trainvitals.app.store import upkeep

    with click.progressbar(length=1, label="Copying", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        upkeep.backup(path, target, progress)


def _size(number: int) -> str:
    return f"{number / 1e6:,.1f} MB"
