"""The command line. Each command loads what it needs when it runs, so that `trainvitals version` is quick."""

import click

from trainvitals.app.cli.alerts import alerts
from trainvitals.app.cli.db import db
from trainvitals.app.cli.demo import demo
from trainvitals.app.cli.diagnose import diagnose
from trainvitals.app.cli.doctor import doctor
from trainvitals.app.cli.export import export
from trainvitals.app.cli.importing import importing
from trainvitals.app.cli.preflight import preflight
from trainvitals.app.cli.report import report
from trainvitals.app.cli.rules import rules
from trainvitals.app.cli.runs import runs
from trainvitals.app.cli.serve import serve
from trainvitals.app.cli.sync import sync
from trainvitals.app.cli.version import version


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Live vital signs of PyTorch training: which layer is sick, since when, why, and what to do."""


for command in (
    serve,
    demo,
    preflight,
    diagnose,
    rules,
    sync,
    runs,
    report,
    export,
    importing,
    db,
    alerts,
    doctor,
    version,
):
    main.add_command(command)
