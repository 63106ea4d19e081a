"""`trainvitals import`: runs that other programs recorded."""

import time
from dataclasses import asdict
from pathlib import Path

import click

from trainvitals.app.cli.output import database_option, json_option, print_json, settings_from


@click.group("import")
def importing() -> None:
    """Take in runs that other programs recorded."""


@importing.command("tensorboard")
@click.argument(
    "logdir", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="LOGDIR"
)
@click.option("--project", default="", help="Project of the runs (default: the folder's name).")
@database_option
@json_option
def import_tensorboard(logdir: Path, project: str, database: Path | None, as_json: bool) -> None:
    """Take in the event files under LOGDIR: scalars, histograms, and hyperparameters as configuration.

    Importing again takes in what is new. May run beside a server.
    """
    from trainvitals.app.store import Store, StoreError
    from trainvitals.app.tensorboard import ImportFailed, import_logs
    from trainvitals.hooks.wire.codec import WireError

    found = []
    try:
        with Store.open(settings_from(database=database).database) as store:
            for item in import_logs(store, logdir, project, time.time()):
                found.append(asdict(item))
                if not as_json:
                    skipped = "".join(f", {n} {kind} skipped" for kind, n in item.skipped.items())
                    click.echo(
                        f"{item.run} ({item.name}): {item.scalars:,} scalars, "
                        f"{item.histograms:,} histograms{skipped}"
                    )
    except (ImportFailed, StoreError, WireError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(found)
