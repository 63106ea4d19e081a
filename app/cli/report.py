"""`trainvitals report`: a run as one HTML file."""

from pathlib import Path

import click

from trainvitals.app.cli.output import database_option, existing_store, settings_from


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="File to write (default: trainvitals-RUN.html in this folder).",
)
@database_option
def report(run_id: str, output: Path | None, database: Path | None) -> None:
    """Write the report of a run: verdict, findings and main plots in one HTML file that opens offline."""
    from trainvitals.app.web import create_app
    from trainvitals.app.web.report import make

    with existing_store(database) as store:
        run = store.run(run_id)
        if run is None:
            raise click.ClickException(
                f"There is no run {run_id!r}. `trainvitals runs ls` lists them."
            )
        app = create_app(settings_from(database=database))
        with app.app_context():
            page = make(store, run, "")
    path = output or Path(f"trainvitals-{run.id}.html")
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path} can't be written: {error.strerror}.") from error
    click.echo(f"{path} ({len(page.encode()) / 1024:,.0f} KiB)")
