"""`trainvitals alerts`: try the channels, read the delivery log."""

import time
from datetime import datetime
from pathlib import Path

import click

from trainvitals.app.cli.output import (
    database_option,
    existing_store,
    json_option,
    print_json,
    print_table,
    settings_from,
)


@click.group()
def alerts() -> None:
    """Try the alert channels, read the delivery log."""


@alerts.command("test")
@click.option("--slack-webhook", help="Slack webhook (better: TRAINVITALS_SLACK_WEBHOOK).")
@click.option("--webhook-url", help="Address for alerts as JSON (TRAINVITALS_WEBHOOK_URL).")
@click.option("--webhook-secret", help="Key that signs them (better: TRAINVITALS_WEBHOOK_SECRET).")
@json_option
def test_channels(as_json: bool, **options: str | None) -> None:
    """Send a test message to every channel that is set up."""
    from trainvitals.app.alerts import channels_from
    from trainvitals.app.alerts.base import ChannelError
    from trainvitals.app.alerts.example import example

    settings = settings_from(**options)
    channels = channels_from(settings)
    if not channels:
        raise click.ClickException(
            "No channel is set up. Set TRAINVITALS_SLACK_WEBHOOK, TRAINVITALS_WEBHOOK_URL, "
            "TRAINVITALS_SMTP_URL with TRAINVITALS_EMAIL_TO, or TRAINVITALS_APPRISE_URL."
        )
    results = []
    for channel in channels:
        try:
            channel.send(example(settings.link_base, time.time()))
            results.append({"channel": channel.key, "ok": True, "message": "delivered"})
        except ChannelError as error:
            results.append({"channel": channel.key, "ok": False, "message": str(error)})
    if as_json:
        print_json(results)
    for result in results:
        if not as_json or not result["ok"]:
            click.echo(f"{result['channel']}: {result['message']}", err=not result["ok"])
    if not all(result["ok"] for result in results):
        raise SystemExit(1)


@alerts.command("ls")
@click.option("--run", "run_id", help="Only of this run.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@database_option
@json_option
def list_deliveries(run_id: str | None, limit: int, database: Path | None, as_json: bool) -> None:
    """List deliveries, the newest first."""
    with existing_store(database) as store:
        found = store.deliveries(run_id, limit=limit)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No alerts yet.")
    else:
        print_table(
            ["TIME", "RUN", "ALERT", "CHANNEL", "STATE", "TRIES", "ERROR"],
            [
                [
                    datetime.fromtimestamp(item.created).strftime("%Y-%m-%d %H:%M:%S"),
                    item.run,
                    f"{item.group} {item.kind}",
                    item.channel,
                    item.state,
                    item.attempts,
                    item.error,
                ]
                for item in found
            ],
        )
