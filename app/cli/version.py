"""`trainvitals version`."""

import click

from trainvitals.app.cli.output import json_option, print_json


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the release of trainvitals."""
    from importlib.metadata import version as package_version

    release = package_version("trainvitals")
    if as_json:
        print_json({"version": release})
    else:
        click.echo(f"trainvitals {release}")
