"""`trainvitals demo`."""

import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port (default: a free one)."
)
@click.option("--exit", "exit_when_done", is_flag=True, help="End when the trainings have ended.")
@click.option(
    "--slack-webhook",
    envvar="TRAINVITALS_SLACK_WEBHOOK",
    default="",
    help="Send the demo's alerts to Slack (default: to an inbox page of its own).",
)
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the demo's data in this folder (default: a temporary one).",
)
def demo(port: int, exit_when_done: bool, slack_webhook: str, data_dir: Path | None) -> None:
    """Start a server and four live trainings, one healthy and three sick, and show what is found."""
    from trainvitals.app.demo import DemoError, run_demo

    try:
        status = run_demo(
            port=port,
            exit_when_done=exit_when_done,
            slack_webhook=slack_webhook,
            data_dir=data_dir,
        )
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)
