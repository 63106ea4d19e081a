"""`trainvitals serve`."""

from pathlib import Path
from typing import Any

import click

from trainvitals.app.cli.output import database_option, settings_from


@click.command()
@click.option("--host", help="Address to bind (default 127.0.0.1). Others need --token.")
@click.option("--port", type=int, help="Port to bind (default 7070; 0 takes a free one).")
@database_option
@click.option("--token", help="Token that writing requires (better: TRAINVITALS_TOKEN).")
@click.option("--read-token", help="Token that reading requires (better: TRAINVITALS_READ_TOKEN).")
@click.option("--slack-webhook", help="Slack webhook (better: TRAINVITALS_SLACK_WEBHOOK).")
@click.option("--webhook-url", help="Address for alerts as JSON (TRAINVITALS_WEBHOOK_URL).")
@click.option("--webhook-secret", help="Key that signs them (better: TRAINVITALS_WEBHOOK_SECRET).")
@click.option("--rules", type=click.Path(path_type=Path, dir_okay=False), help="Policy file.")
@click.option("--retention", help='How long runs are kept, such as "days=90 size=20GB".')
@click.option("--workers", type=int, help="Server processes (default 2).")
@click.option("--base-url", help="Public address, for the links in alerts.")
@click.option(
    "--allow-host", "allowed_hosts", multiple=True, help="Further host name to answer to."
)
def serve(database: Path | None, allowed_hosts: tuple[str, ...], **options: Any) -> None:
    """Run the server: pages, API, rules and alerts.

    What is given on a command line is visible to everyone on the machine: set secrets as environment
    variables, or name a file that holds them in TRAINVITALS_TOKEN_FILE and the like.
    """
    from trainvitals.app import serve as server

    settings = settings_from(database=database, allowed_hosts=allowed_hosts or None, **options)
    try:
        server.serve(settings, announce=_announce)
    except server.ServeError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        return


def _announce(line: str) -> None:
    # Read by whoever started the server through a pipe, who waits for it.
    print(line, flush=True)
