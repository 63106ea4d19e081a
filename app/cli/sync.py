"""`trainvitals sync`: deliver what a training recorded while no server took it."""

from pathlib import Path

import click

from trainvitals.app.cli.output import json_option, print_json
from trainvitals.hooks.settings import DEFAULT_KEEP_MB


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
@click.option(
    "--keep-mb",
    envvar="TRAINVITALS_SPOOL_KEEP_MB",
    type=click.IntRange(min=0),
    default=DEFAULT_KEEP_MB,
    help="MB of delivered records that may stay in DIR (or TRAINVITALS_SPOOL_KEEP_MB; default 1024).",
)
@json_option
def sync(folder: Path, url: str, token: str, keep_mb: int, as_json: bool) -> None:
    """Deliver the records under DIR, a training's folder or its .trainvitals (default: here).

    Sending again is harmless: the server stores each record once. Of what is delivered the oldest is removed where
    it takes more room than --keep-mb.
    """
    from trainvitals.hooks.sender import sync as deliver

    spool = folder / ".trainvitals"
    try:
        result = deliver(spool if spool.is_dir() else folder, url, token, keep=keep_mb << 20)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(
            {
                "streams": result.streams,
                "delivered": result.delivered,
                "failed": result.failed,
                "damaged": result.damaged,
                "removed_bytes": result.removed,
                "kept_bytes": result.kept,
                "waiting_bytes": result.waiting,
            }
        )
    else:
        click.echo(
            f"Delivered {result.delivered:,} records of {result.streams} stream(s) to {url}."
        )
        removed = f"{_megabytes(result.removed)} removed, " if result.removed else ""
        click.echo(
            f"On this disk: {removed}{_megabytes(result.kept)} delivered (of which at most {keep_mb:,} MB stay), "
            f"{_megabytes(result.waiting)} still to deliver."
        )
    for stream, told in result.damaged.items():
        for line in told:
            click.echo(f"Lost: {stream}: {line}. What is behind it was delivered.", err=True)
    for stream, reason in result.failed.items():
        click.echo(f"Not delivered: {stream}: {reason}", err=True)
    if result.failed:
        raise SystemExit(1)


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MB"
