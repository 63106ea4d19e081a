"""`trainvitals preflight`: checks before a training, in a process of its own, as the server side loads no torch."""

import subprocess
import sys

import click

from trainvitals.app.cli.output import json_option


@click.command()
@click.argument("target", metavar="SCRIPT.PY:FACTORY")
@json_option
def preflight(target: str, as_json: bool) -> None:
    """Check a model, its data, its loss and its optimizer before training.

    FACTORY is a function in SCRIPT.PY that returns (model, batch_or_loader, loss_fn, optimizer). Ends with 1 when
    something is wrong, with 2 when nothing could be checked.
    """
    command = [sys.executable, "-m", "trainvitals.hooks.checks", target]
    sys.exit(subprocess.run([*command, "--json"] if as_json else command).returncode)
