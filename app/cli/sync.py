"""`trainvitals sync`: deliver what a training recorded while no server took it."""

from pathlib import Path

import click

from trainvitals.app.cli.output import json_option, print_json


@click.command()
@click.argument(
    "folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path(".")
)
@click.option(
    "--url",
    envvar="TRAINVITALS_URL",
    default="http://127.0.0.1:7070",
    help="Server to deliver to (or TRAINVITALS_URL; default http://127.0.0.1:7070).",
)
@click.option(
    "--token", envvar="TRAINVITALS_TOKEN", default="", help="Its token (better: TRAINVITALS_TOKEN)."
)
@json_option
def sync(folder: Path, url: str, token: str, as_json: bool) -> None:
    """Deliver the records under DIR, a training's folder or its .trainvitals (default: here).

    Sending again is harmless: the server stores each record once.
    """
    from trainvitals.hooks.sender import sync as deliver

    spool = folder / ".trainvitals"
    try:
        result = deliver(spool if spool.is_dir() else folder, url, token)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(
            {"streams": result.streams, "delivered": result.delivered, "failed": result.failed}
        )
    else:
        click.echo(
            f"Delivered {result.delivered:,} records of {result.streams} stream(s) to {url}."
        )
    for stream, reason in result.failed.items():
        click.echo(f"Not delivered: {stream}: {reason}", err=True)
    if result.failed:
        raise SystemExit(1)
